package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sallyport/sallyport/gateway/broker/vaulttest"
	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
)

// vaultMain stands in for Vault's own command line, of which it understands what our
// script uses.
func vaultMain() {
	if err := vaultWrite(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "vault:", err)
		os.Exit(2)
	}
}

func vaultWrite(args []string) error {
	body, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	command := strings.Join(args, " ")
	var path string
	switch {
	case len(args) == 4 && args[0] == "policy" && args[1] == "write" && args[3] == "-":
		path = "sys/policies/acl/" + args[2]
		if body, err = json.Marshal(map[string]string{"policy": string(body)}); err != nil {
			return err
		}
	case len(args) == 3 && args[0] == "write" && args[2] == "-":
		path = args[1]
	default:
		return fmt.Errorf("what is %q?", command)
	}
	r, err := http.NewRequest(http.MethodPut, os.Getenv("VAULT_ADDR")+"/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("X-Vault-Token", os.Getenv("VAULT_TOKEN"))
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		text, _ := io.ReadAll(answer.Body)
		return fmt.Errorf("%s: %s %s", command, answer.Status, text)
	}
	return nil
}

// An operator makes roles of a Vault, gives Vault what "vault policy" says, and services
// get credentials of a PostgreSQL, which works with them and forgets them.
func TestVault(t *testing.T) {
	vault, postgres := vaulttest.StartVault(t), vaulttest.StartPostgres(t, vaulttest.WithoutFsync())
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(vaulttest.EnableDatabase(vault, postgres, "app", time.Hour, 24*time.Hour))
	check(vaulttest.EnableKV(vault))
	check(vaulttest.EnablePKI(vault, "web", time.Hour, 24*time.Hour))
	vault.Must(http.MethodPost, vaulttest.KVMount+"/data/team/app", map[string]any{"data": map[string]any{"api.key": "abc", "note": "d\"e\nf"}})
	roleID, secretID, err := vaulttest.EnableAppRole(vault, "sallyport-gateway")
	check(err)
	file := filepath.Join(t.TempDir(), "secret-id")
	check(os.WriteFile(file, []byte(secretID), 0o600))
	gw := gatewaytest.Start(t, gatewaytest.WithConfig(func(c *config.Config) {
		c.Sources.Vault = append(c.Sources.Vault, config.Vault{
			Name: "vault", Address: vault.Address, Timeout: 3 * time.Second, RequestLimit: 3 * time.Second,
			AppRole: &config.VaultAppRole{RoleID: roleID, SecretIDFile: file},
		})
	}))
	runtimeDir := memory(t)
	host, port, _ := strings.Cut(postgres.Host, ":")
	testscript.Run(t, testscript.Params{
		Dir: "testdata/vault", RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			setup(env, gw)
			for name, value := range map[string]string{
				"XDG_RUNTIME_DIR": runtimeDir, "VAULT_ADDR": vault.Address, "VAULT_TOKEN": vault.RootToken,
				"PGHOST": host, "PGPORT": port, "PGDATABASE": "postgres", "PGSSLMODE": "disable",
			} {
				env.Setenv(name, value)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": status,
			"noroles": func(ts *testscript.TestScript, _ bool, _ []string) {
				if roles := postgres.Roles("v-"); len(roles) > 0 {
					ts.Fatalf("PostgreSQL knows %v", roles)
				}
			},
		},
	})
}
