package vaulttest_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/broker/vaulttest"
)

const lookup = "auth/token/lookup-self"

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what happens after a call has returned.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what, " does not happen")
		}
	}
}

// credentials are those of a role that Vault issued.
type credentials struct{ lease, user, password string }

func issue(t *testing.T, v *vaulttest.Vault, token string) credentials {
	t.Helper()
	answer, err := v.DoAs(token, http.MethodGet, "database/creds/app", nil)
	check(t, err)
	c := credentials{
		lease:    vaulttest.Lookup(answer, "lease_id"),
		user:     vaulttest.Lookup(answer, "data", "username"),
		password: vaulttest.Lookup(answer, "data", "password"),
	}
	if !strings.HasPrefix(c.user, "v-") || c.password == "" || c.lease == "" {
		t.Fatalf("not credentials: %v", answer)
	}
	return c
}

// child makes a token that may only read database credentials.
func child(t *testing.T, v *vaulttest.Vault) (token, accessor string) {
	t.Helper()
	check(t, vaulttest.WritePolicy(v, "app", `path "database/creds/app" { capabilities = ["read"] }`))
	answer := v.Must(http.MethodPost, "auth/token/create-orphan", map[string]any{
		"policies": []string{"app"}, "no_default_policy": true, "ttl": "10m",
	})
	return vaulttest.Lookup(answer, "auth", "client_token"), vaulttest.Lookup(answer, "auth", "accessor")
}

func TestRoleLivesAsLongAsItsLease(t *testing.T) {
	t.Parallel()
	v, pg := vaulttest.StartVault(t), vaulttest.StartPostgres(t)
	check(t, vaulttest.EnableDatabase(v, pg, "app", time.Minute, time.Hour))
	c := issue(t, v, v.RootToken)
	check(t, pg.Login(c.user, c.password))
	if pg.Login(c.user, "wrong") == nil {
		t.Error("a wrong password is as good")
	}
	if got := pg.Roles("v-"); !slices.Equal(got, []string{c.user}) {
		t.Errorf("roles %q, want %q", got, c.user)
	}
	v.Must(http.MethodPut, "sys/leases/renew", map[string]any{"lease_id": c.lease, "increment": 600})
	v.Must(http.MethodPut, "sys/leases/revoke", map[string]any{"lease_id": c.lease, "sync": true})
	if got := pg.Roles("v-"); len(got) != 0 {
		t.Errorf("roles %q after revocation", got)
	}
	if pg.Login(c.user, c.password) == nil {
		t.Error("a revoked role logs in")
	}
}

func TestRoleLivesAsLongAsItsToken(t *testing.T) {
	t.Parallel()
	v, pg := vaulttest.StartVault(t), vaulttest.StartPostgres(t)
	check(t, vaulttest.EnableDatabase(v, pg, "app", time.Minute, time.Hour))
	token, accessor := child(t, v)
	c := issue(t, v, token)
	check(t, pg.Login(c.user, c.password))
	v.Must(http.MethodPost, "auth/token/revoke-accessor", map[string]any{"accessor": accessor})
	eventually(t, "the end of the role", func() bool { return len(pg.Roles("v-")) == 0 })
	if _, err := v.DoAs(token, http.MethodGet, lookup, nil); err == nil {
		t.Error("a revoked token works")
	}
}

func TestRoleEndsByItself(t *testing.T) {
	t.Parallel()
	v, pg := vaulttest.StartVault(t), vaulttest.StartPostgres(t)
	check(t, vaulttest.EnableDatabase(v, pg, "app", time.Second, 2*time.Second))
	issue(t, v, v.RootToken)
	eventually(t, "the end of the role", func() bool { return len(pg.Roles("v-")) == 0 })
}

func TestFileStorageOutlastsACrash(t *testing.T) {
	t.Parallel()
	v, pg := vaulttest.StartVault(t, vaulttest.WithFileStorage()), vaulttest.StartPostgres(t)
	check(t, vaulttest.EnableDatabase(v, pg, "app", time.Hour, time.Hour))
	token, accessor := child(t, v)
	c := issue(t, v, token)
	check(t, v.Kill())
	if _, err := v.Do(http.MethodGet, lookup, nil); err == nil {
		t.Fatal("a killed server answers")
	}
	check(t, v.Restart())
	check(t, pg.Login(c.user, c.password))
	if got := vaulttest.Lookup(v.Must(http.MethodPut, "sys/leases/lookup", map[string]any{"lease_id": c.lease}), "data", "id"); got != c.lease {
		t.Errorf("lease %q after the crash, want %q", got, c.lease)
	}
	v.Must(http.MethodPost, "auth/token/revoke-accessor", map[string]any{"accessor": accessor})
	eventually(t, "the end of the role", func() bool { return len(pg.Roles("v-")) == 0 })
}

// A kill in the middle of a write leaves a file beside the others, which would seal the
// server once it has read its leases.
func TestWhatAKilledServerWasWriting(t *testing.T) {
	t.Parallel()
	v := vaulttest.StartVault(t, vaulttest.WithFileStorage())
	_, accessor := child(t, v)
	check(t, v.Kill())
	leases, err := filepath.Glob(v.Dir + "/storage/sys/expire/id/auth/token/create-orphan/*")
	check(t, err)
	if len(leases) == 0 {
		t.Fatal("no lease is in storage")
	}
	text, err := os.ReadFile(leases[0])
	check(t, err)
	check(t, os.WriteFile(leases[0]+"1234567", text, 0o600))
	check(t, v.Restart())
	if left, err := filepath.Glob(leases[0] + "*"); err != nil || !slices.Equal(left, leases[:1]) {
		t.Errorf("%q is left: %v", left, err)
	}
	v.Must(http.MethodPost, "auth/token/lookup-accessor", map[string]any{"accessor": accessor})
}

func TestFolderIsTakenUpByAnother(t *testing.T) {
	t.Parallel()
	options := []vaulttest.Option{vaulttest.WithFileStorage(), vaulttest.WithDir(t.TempDir() + "/vault")}
	first, err := vaulttest.LaunchVault(t.Context(), options...)
	check(t, err)
	check(t, vaulttest.WritePolicy(first, "app", `path "a" { capabilities = ["read"] }`))
	check(t, first.Stop())
	second := vaulttest.StartVault(t, options...)
	second.Must(http.MethodGet, "sys/policies/acl/app", nil)
}

func TestMemoryForgetsInACrash(t *testing.T) {
	t.Parallel()
	v := vaulttest.StartVault(t)
	before, address := v.RootToken, v.Address
	check(t, v.Restart())
	if v.RootToken == before || v.Address != address {
		t.Errorf("the same token, or another address: %s, %s", v.Address, address)
	}
	v.Must(http.MethodGet, lookup, nil)
}

func TestSealAndPause(t *testing.T) {
	t.Parallel()
	v := vaulttest.StartVault(t, vaulttest.WithSealed())
	var failure *vaulttest.StatusError
	if _, err := v.Do(http.MethodGet, lookup, nil); !errors.As(err, &failure) || failure.Code != http.StatusServiceUnavailable {
		t.Fatalf("started sealed: %v", err)
	}
	check(t, v.Unseal())
	v.Must(http.MethodGet, lookup, nil)
	check(t, v.Seal())
	if _, err := v.Do(http.MethodGet, lookup, nil); err == nil {
		t.Error("a sealed server answers")
	}
	check(t, v.Unseal())
	check(t, v.Pause())
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := v.Send(ctx, vaulttest.Request{Method: http.MethodGet, Path: lookup, Token: v.RootToken})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a paused server: %v", err)
	}
	check(t, v.Resume())
	v.Must(http.MethodGet, lookup, nil)
	if cpu, err := v.CPU(); err != nil || cpu <= 0 {
		t.Errorf("cpu %v: %v", cpu, err)
	}
}

func TestKVAndPKI(t *testing.T) {
	t.Parallel()
	v := vaulttest.StartVault(t)
	check(t, vaulttest.EnableKV(v))
	v.Must(http.MethodPost, "secret/data/app/db", map[string]any{"data": map[string]any{"password": "one"}})
	v.Must(http.MethodPost, "secret/data/app/db", map[string]any{"data": map[string]any{"password": "two"}})
	if got := vaulttest.Lookup(v.Must(http.MethodGet, "secret/data/app/db", nil), "data", "data", "password"); got != "two" {
		t.Errorf("password %q", got)
	}
	if got := vaulttest.Lookup(v.Must(http.MethodGet, "secret/data/app/db?version=1", nil), "data", "data", "password"); got != "one" {
		t.Errorf("first password %q", got)
	}

	check(t, vaulttest.EnablePKI(v, "web", time.Hour, time.Hour))
	answer := v.Must(http.MethodPost, "pki/issue/web", map[string]any{"common_name": "web.example.com"})
	lease := vaulttest.Lookup(answer, "lease_id")
	if lease == "" || vaulttest.Lookup(answer, "data", "private_key") == "" {
		t.Fatal("no certificate with a lease")
	}
	v.Must(http.MethodPut, "sys/leases/revoke", map[string]any{"lease_id": lease, "sync": true})
	serial := vaulttest.Lookup(answer, "data", "serial_number")
	got := v.Must(http.MethodGet, "pki/cert/"+serial, nil)["data"].(map[string]any)["revocation_time"]
	if got == float64(0) {
		t.Error("the certificate is not revoked")
	}
}

func TestAWS(t *testing.T) {
	t.Parallel()
	v, moto := vaulttest.StartVault(t), vaulttest.StartMoto(t)
	check(t, vaulttest.EnableAWS(v, moto))
	answer := v.Must(http.MethodPost, "aws/sts/"+vaulttest.AWSRole, map[string]any{})
	if vaulttest.Lookup(answer, "data", "security_token") == "" || vaulttest.Lookup(answer, "lease_id") == "" {
		t.Errorf("not credentials: %v", answer)
	}
	user := v.Must(http.MethodGet, "aws/creds/user", nil)
	v.Must(http.MethodPut, "sys/leases/revoke", map[string]any{"lease_id": vaulttest.Lookup(user, "lease_id"), "sync": true})
}

func works(t *testing.T, v *vaulttest.Vault, token string, err error) {
	t.Helper()
	check(t, err)
	_, err = v.DoAs(token, http.MethodGet, lookup, nil)
	check(t, err)
}

func TestAppRole(t *testing.T) {
	t.Parallel()
	v := vaulttest.StartVault(t)
	roleID, secretID, err := vaulttest.EnableAppRole(v, "default")
	check(t, err)
	token, _, err := v.Login("approle", map[string]any{"role_id": roleID, "secret_id": secretID})
	works(t, v, token, err)

	wrapping, err := vaulttest.WrapSecretID(v, time.Minute)
	check(t, err)
	answer, err := v.DoAs(wrapping, http.MethodPost, "sys/wrapping/unwrap", nil)
	check(t, err)
	token, _, err = v.Login("approle", map[string]any{"role_id": roleID, "secret_id": vaulttest.Lookup(answer, "data", "secret_id")})
	works(t, v, token, err)
	if _, err := v.DoAs(wrapping, http.MethodPost, "sys/wrapping/unwrap", nil); err == nil {
		t.Error("unwrapped twice")
	}
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	v := vaulttest.StartVault(t, vaulttest.WithTLS())
	check(t, vaulttest.EnableCert(v, "default"))
	stranger, err := vaulttest.NewAuthority("a stranger")
	check(t, err)
	login := func(certificate tls.Certificate, err error) (string, error) {
		check(t, err)
		answer, err := v.Send(t.Context(), vaulttest.Request{
			Method: http.MethodPost, Path: "auth/cert/login", Body: map[string]any{"name": vaulttest.LoginRole}, Certificate: &certificate,
		})
		return vaulttest.Lookup(answer, "auth", "client_token"), err
	}
	token, err := login(v.ClientCA.Client("gateway"))
	works(t, v, token, err)
	if _, err := login(stranger.Client("gateway")); err == nil {
		t.Error("a stranger logs in")
	}
}

func TestJWT(t *testing.T) {
	t.Parallel()
	v := vaulttest.StartVault(t)
	signer, err := vaulttest.EnableJWT(v, "default")
	check(t, err)
	login := func(claims map[string]any) (string, error) {
		jwt, err := signer.Sign(claims)
		check(t, err)
		token, _, err := v.Login("jwt", map[string]any{"role": vaulttest.LoginRole, "jwt": jwt})
		return token, err
	}
	token, err := login(map[string]any{"sub": "gateway", "aud": vaulttest.JWTAudience})
	works(t, v, token, err)
	if _, err := login(map[string]any{"sub": "gateway", "aud": "another"}); err == nil {
		t.Error("a token for somebody else logs in")
	}
}

func TestKubernetes(t *testing.T) {
	t.Parallel()
	v := vaulttest.StartVault(t)
	k, err := vaulttest.EnableKubernetes(v, "default")
	check(t, err)
	jwt, err := k.Token("production", vaulttest.LoginRole)
	check(t, err)
	body := map[string]any{"role": vaulttest.LoginRole, "jwt": jwt}
	token, _, err := v.Login("kubernetes", body)
	works(t, v, token, err)
	k.Delete(jwt)
	if _, _, err := v.Login("kubernetes", body); err == nil {
		t.Error("the token of a pod that is gone logs in")
	}
}
