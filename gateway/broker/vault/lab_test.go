package vault_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/broker/vault"
	"github.com/sallyport/sallyport/gateway/broker/vaulttest"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// The real servers that tests share, started by the first that needs them. Each test
// has policies and a token role of its own there.
var shared servers

type servers struct {
	once     sync.Once
	err      error
	vault    *vaulttest.Vault
	postgres *vaulttest.Postgres
}

func startShared() {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	if shared.vault, shared.err = vaulttest.LaunchVault(ctx); shared.err != nil {
		return
	}
	if shared.postgres, shared.err = vaulttest.LaunchPostgres(ctx); shared.err != nil {
		return
	}
	shared.err = enable(shared.vault, shared.postgres)
}

// postgresFor gives the shared database.
func (s *servers) postgresFor(t *testing.T) *vaulttest.Postgres {
	t.Helper()
	s.once.Do(startShared)
	check(t, s.err)
	return s.postgres
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.postgres != nil {
		shared.postgres.Stop()
	}
	if shared.vault != nil {
		shared.vault.Stop()
	}
	os.Exit(code)
}

// enable sets engines up: database roles live an hour, at most two.
func enable(v *vaulttest.Vault, pg *vaulttest.Postgres) error {
	_, err := v.Do(http.MethodPost, "sys/auth/approle", map[string]any{"type": "approle"})
	return errors.Join(err,
		vaulttest.EnableDatabase(v, pg, "app", time.Hour, 2*time.Hour),
		vaulttest.EnableKV(v),
		vaulttest.EnablePKI(v, "app", time.Hour, 2*time.Hour))
}

// lab is a Vault that lets a gateway sign in by AppRole with the documents of its
// source, and nothing else.
type lab struct {
	*vaulttest.Vault
	pg     *vaulttest.Postgres
	prefix string
	config vault.Config
	log    *syncBuffer
}

var (
	serial sync.Mutex
	count  int
)

// newLab prepares the shared Vault for a test.
func newLab(t *testing.T) *lab {
	t.Helper()
	shared.once.Do(startShared)
	check(t, shared.err)
	return labOn(t, shared.vault, shared.postgres)
}

// ownLab starts a Vault for one test.
func ownLab(t *testing.T, options ...vaulttest.Option) *lab {
	t.Helper()
	pg := shared.postgresFor(t)
	v := vaulttest.StartVault(t, options...)
	check(t, enable(v, pg))
	return labOn(t, v, pg)
}

func labOn(t *testing.T, v *vaulttest.Vault, pg *vaulttest.Postgres) *lab {
	t.Helper()
	serial.Lock()
	count++
	l := &lab{Vault: v, pg: pg, prefix: fmt.Sprintf("lab-%d", count), log: &syncBuffer{}}
	serial.Unlock()
	l.config = vault.Config{
		Name: "test", Address: v.Address, CAFile: v.CACert, Timeout: 4 * time.Second, RequestLimit: 2 * time.Second,
		TokenRole: l.prefix, PolicyPrefix: l.prefix,
		Logger: slog.New(slog.NewTextHandler(l.log, nil)),
	}
	l.appRole(t, nil)
	return l
}

// appRole makes the role that the gateway signs in with. Its tokens live an hour,
// unless the settings say otherwise.
func (l *lab) appRole(t *testing.T, settings map[string]any) {
	t.Helper()
	role := "auth/approle/role/" + l.prefix
	all := map[string]any{
		"token_policies": []string{l.prefix + "-gateway"}, "token_no_default_policy": true, "token_ttl": "1h", "token_max_ttl": "24h",
	}
	for k, s := range settings {
		all[k] = s
	}
	l.Must(http.MethodPost, role, all)
	id := vaulttest.Lookup(l.Must(http.MethodGet, role+"/role-id", nil), "data", "role_id")
	secretID := vaulttest.Lookup(l.Must(http.MethodPost, role+"/secret-id", map[string]any{}), "data", "secret_id")
	l.config.AppRole = &vault.AppRole{RoleID: id, SecretIDFile: l.file(t, "secret-id", secretID+"\n")}
}

func (l *lab) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	check(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// source opens a source with the documents for some roles applied.
func (l *lab) source(t *testing.T, roles ...lease.Role) *vault.Source {
	t.Helper()
	s, err := vault.New(l.config)
	check(t, err)
	t.Cleanup(s.Close)
	l.apply(s.Policy(roles))
	return s
}

func (l *lab) apply(documents []*controlv1.SourceDocument) {
	for _, d := range documents {
		if d.GetKind() == "policy" {
			l.Must(http.MethodPut, "sys/policies/acl/"+d.GetName(), map[string]any{"policy": d.GetContent()})
			continue
		}
		var body map[string]any
		if err := json.Unmarshal([]byte(d.GetContent()), &body); err != nil {
			panic(err)
		}
		l.Must(http.MethodPost, "auth/token/roles/"+d.GetName(), body)
	}
}

// issue issues a credential.
func issue(t *testing.T, s *vault.Source, o lease.Order) (lease.Issued, lease.Anchor) {
	t.Helper()
	ticket, err := s.Prepare(t.Context(), o)
	check(t, err)
	anchor := ticket.Anchor()
	issued, err := ticket.Issue(t.Context())
	check(t, err)
	t.Cleanup(issued.Value.Wipe)
	anchor.Ref = issued.Ref
	return issued, anchor
}

func order(r lease.Role, lifetime time.Duration) lease.Order {
	o := lease.Order{
		Lease: lease.Name{Role: r.Name}, Role: r, Workload: "spiffe://example.org/app", Registration: "app",
		Lifetime: lifetime, MaxLifetime: lifetime, Now: time.Now(),
	}
	if r.Renewable {
		o.MaxLifetime = r.MaxLifetime
	}
	return o
}

func role(name string, p *controlv1.SecretParameters) lease.Role {
	return lease.Role{
		Name: lease.RoleName{Tenant: "acme", Role: name}, Source: "test", Parameters: p,
		MaxLifetime: 30 * time.Minute, DefaultLifetime: time.Minute, Quota: 100,
	}
}

func database(name string) lease.Role {
	r := role(name, &controlv1.SecretParameters{Kind: &controlv1.SecretParameters_VaultDatabase{
		VaultDatabase: &controlv1.VaultDatabase{Mount: vaulttest.DatabaseMount, Role: name},
	}})
	r.Renewable = true
	return r
}

func certificate() lease.Role {
	return role("tls", &controlv1.SecretParameters{Kind: &controlv1.SecretParameters_VaultPki{
		VaultPki: &controlv1.VaultPki{Mount: vaulttest.PKIMount, Role: "app", CommonName: "app.example.org", DnsNames: []string{"a.example.org", "b.example.org"}},
	}})
}

func kv(path string) lease.Role {
	return role("kv", &controlv1.SecretParameters{Kind: &controlv1.SecretParameters_VaultKv{
		VaultKv: &controlv1.VaultKv{Mount: vaulttest.KVMount, Path: path},
	}})
}

func dynamic(path string, body map[string]string) lease.Role {
	return role("dynamic", &controlv1.SecretParameters{Kind: &controlv1.SecretParameters_VaultDynamic{
		VaultDynamic: &controlv1.VaultDynamic{Path: path, Body: body},
	}})
}

// text gives a field of a value.
func text(t *testing.T, v lease.Value, name string) string {
	t.Helper()
	for _, f := range v {
		if f.Name == name {
			var s string
			check(t, f.Value.Use(func(b []byte) error { s = string(b); return nil }))
			return s
		}
	}
	t.Fatalf("no field %s in %q", name, v.Names())
	return ""
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantReason(t *testing.T, what string, err error, want fault.Reason) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Reason != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}

func between(t *testing.T, what string, at, from, to time.Time) {
	t.Helper()
	if at.Before(from) || at.After(to) {
		t.Errorf("%s %v, not between %v and %v", what, at, from, to)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *syncBuffer) has(s string) bool { return strings.Contains(b.String(), s) }
