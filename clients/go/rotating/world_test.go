package rotating_test

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/gateway/broker/vaulttest"
	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/gateway/development"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

const ordersRole = "tenants/demo/secretRoles/orders-db"

// What tests and examples share: a gateway over a real Vault over a real PostgreSQL. The
// gateway's leases of ordersRole cannot be renewed.
var (
	gateway     development.Endpoints
	postgres    *vaulttest.Postgres
	postgresURL string // without a login that works
)

func TestMain(m *testing.M) {
	stop, err := start(context.Background())
	if err != nil {
		log.Fatal(errors.Join(err, stop()))
	}
	code := m.Run()
	if err := stop(); err != nil {
		log.Fatal(err)
	}
	os.Exit(code)
}

// start starts the servers, the last of which is stopped first.
func start(ctx context.Context) (stop func() error, err error) {
	var stops []func() error
	stop = func() (err error) {
		for i := range stops {
			err = errors.Join(err, stops[len(stops)-1-i]())
		}
		return err
	}
	dir, err := os.MkdirTemp("", "sallyport")
	if err != nil {
		return stop, err
	}
	stops = append(stops, func() error { return os.RemoveAll(dir) })
	if postgres, err = vaulttest.LaunchPostgres(ctx, vaulttest.WithoutFsync()); err != nil {
		return stop, err
	}
	stops = append(stops, postgres.Stop)
	postgresURL = postgres.URL("nobody", "nothing")
	vault, err := vaulttest.LaunchVault(ctx)
	if err != nil {
		return stop, err
	}
	stops = append(stops, vault.Stop)
	roleID, secretID, err := vaulttest.EnableAppRole(vault, "sallyport-gateway")
	secretFile := filepath.Join(dir, "secret-id")
	if err = errors.Join(err, os.WriteFile(secretFile, []byte(secretID), 0o600),
		vaulttest.EnableDatabase(vault, postgres, "orders", time.Hour, 24*time.Hour)); err != nil {
		return stop, err
	}
	g, err := development.Start(ctx, development.Config{
		Dir: filepath.Join(dir, "gateway"), Logger: slog.New(slog.DiscardHandler),
		Change: func(c *config.Config) {
			c.Sources.Vault = append(c.Sources.Vault, config.Vault{
				Name: "vault", Address: vault.Address, Timeout: 5 * time.Second,
				AppRole: &config.VaultAppRole{RoleID: roleID, SecretIDFile: secretFile},
			})
		},
	})
	if err != nil {
		return stop, err
	}
	stops = append(stops, g.Stop)
	gateway = g.Endpoints
	return stop, makeRole(ctx, vault)
}

func dialControl(ctx context.Context) (*sallyport.Control, error) {
	return sallyport.DialControl(ctx, gateway.Control, sallyport.Options{
		Credentials: sallyport.Files{Certificate: gateway.Operator.Cert, Key: gateway.Operator.Key, CA: gateway.CA},
	})
}

// makeRole does what operators do: make the role, and allow the gateway in Vault what it
// says that it needs for it.
func makeRole(ctx context.Context, vault *vaulttest.Vault) error {
	admin, err := dialControl(ctx)
	if err != nil {
		return err
	}
	defer admin.Close()
	if _, err := admin.SecretRoles.CreateSecretRole(ctx, &controlv1.CreateSecretRoleRequest{
		Parent: "tenants/demo", SecretRoleId: "orders-db", Source: "vault", MaxLifetime: durationpb.New(time.Hour), SealedOnly: true,
		Parameters: &controlv1.SecretParameters{Kind: &controlv1.SecretParameters_VaultDatabase{
			VaultDatabase: &controlv1.VaultDatabase{Mount: vaulttest.DatabaseMount, Role: "orders"},
		}},
	}); err != nil {
		return err
	}
	needs, err := admin.SecretRoles.GetSourcePolicy(ctx, &controlv1.GetSourcePolicyRequest{Name: "sources/vault"})
	if err != nil {
		return err
	}
	for _, d := range needs.GetDocuments() {
		if d.GetKind() == "policy" {
			err = errors.Join(err, vaulttest.WritePolicy(vault, d.GetName(), d.GetContent()))
			continue
		}
		var body map[string]any
		err = errors.Join(err, json.Unmarshal([]byte(d.GetContent()), &body))
		_, failed := vault.Do(http.MethodPost, "auth/token/roles/"+d.GetName(), body)
		err = errors.Join(err, failed)
	}
	return err
}
