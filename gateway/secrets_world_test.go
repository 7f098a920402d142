package gateway_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sallyport/sallyport/gateway/broker/vaulttest"
	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// vaultWorld is a real Vault over a real PostgreSQL, and a way to it that can be
// watched and broken.
type vaultWorld struct {
	vault    *vaulttest.Vault
	postgres *vaulttest.Postgres
	way      *way
	source   config.Vault
}

const (
	databaseRole = "tenants/demo/secretRoles/db"
	// dynamicPrefix begins the names of the PostgreSQL roles that Vault makes.
	dynamicPrefix = "v-"
)

// newVaultWorld starts the servers, and lets a gateway sign in by AppRole. What Vault
// allows it comes with allow.
func newVaultWorld(t *testing.T, options ...vaulttest.Option) *vaultWorld {
	t.Helper()
	w := &vaultWorld{vault: vaulttest.StartVault(t, options...), postgres: vaulttest.StartPostgres(t)}
	must(t, vaulttest.EnableDatabase(w.vault, w.postgres, "app", time.Hour, 24*time.Hour))
	must(t, vaulttest.EnableKV(w.vault))
	roleID, secretID, err := vaulttest.EnableAppRole(w.vault, "sallyport-gateway")
	must(t, err)
	file := filepath.Join(t.TempDir(), "secret-id")
	must(t, os.WriteFile(file, []byte(secretID), 0o600))
	w.way = newWay(t, w.vault.Address)
	w.source = config.Vault{
		Name: "vault", Address: w.way.URL, Timeout: 3 * time.Second, RequestLimit: 3 * time.Second, AppRole: &config.VaultAppRole{RoleID: roleID, SecretIDFile: file},
	}
	return w
}

// change adds the source to a gateway's configuration, with bounds that suit a test.
func (w *vaultWorld) change(c *config.Config) {
	c.Sources.Vault = append(c.Sources.Vault, w.source)
	c.Leases.IssueTimeout, c.Leases.Margin = 12*time.Second, 10*time.Second
	c.Leases.PerSecond, c.Leases.Burst = 1000, 1000
}

// asText is for a gateway in another process.
func (w *vaultWorld) asText(t *testing.T) string {
	t.Helper()
	text, err := json.Marshal(w.source)
	must(t, err)
	return string(text)
}

// role makes a role of the demo tenant, as an operator would.
func role(t *testing.T, gw *gatewaytest.Gateway, id, source string, p *controlv1.SecretParameters, change ...func(*controlv1.CreateSecretRoleRequest)) {
	t.Helper()
	r := &controlv1.CreateSecretRoleRequest{
		Parent: "tenants/demo", SecretRoleId: id, Source: source, Parameters: p, Renewable: true, QuotaPerWorkload: 1000,
		MaxLifetime: durationpb.New(time.Hour), DefaultLifetime: durationpb.New(10 * time.Minute),
	}
	for _, c := range change {
		c(r)
	}
	roles := controlv1.NewSecretRoleServiceClient(dial(t, gw, gw.Endpoints.Control, gw.Endpoints.Operator))
	_, err := roles.CreateSecretRole(t.Context(), r)
	must(t, err)
}

func database(name string) *controlv1.SecretParameters {
	return &controlv1.SecretParameters{Kind: &controlv1.SecretParameters_VaultDatabase{
		VaultDatabase: &controlv1.VaultDatabase{Mount: vaulttest.DatabaseMount, Role: name},
	}}
}

// allow gives the gateway in Vault what the gateway says that it needs, and no more.
func (w *vaultWorld) allow(t *testing.T, gw *gatewaytest.Gateway) {
	t.Helper()
	roles := controlv1.NewSecretRoleServiceClient(dial(t, gw, gw.Endpoints.Control, gw.Endpoints.Operator))
	needs, err := roles.GetSourcePolicy(t.Context(), &controlv1.GetSourcePolicyRequest{Name: "sources/vault"})
	must(t, err)
	for _, d := range needs.GetDocuments() {
		switch d.GetKind() {
		case "policy":
			must(t, vaulttest.WritePolicy(w.vault, d.GetName(), d.GetContent()))
		case "token_role":
			var body map[string]any
			must(t, json.Unmarshal([]byte(d.GetContent()), &body))
			w.vault.Must(http.MethodPost, "auth/token/roles/"+d.GetName(), body)
		default:
			t.Fatalf("a document of kind %q", d.GetKind())
		}
	}
}

// way is a proxy between the gateway and Vault. What is set to happen happens at the
// request with that number.
type way struct {
	*httptest.Server
	requests atomic.Int64

	mu     sync.Mutex
	at     int64
	happen func(forward func()) // instead of passing the request
}

func newWay(t *testing.T, address string) *way {
	t.Helper()
	target, err := url.Parse(address)
	must(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { panic(http.ErrAbortHandler) }
	w := &way{}
	w.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		n := w.requests.Add(1)
		w.mu.Lock()
		happen := w.happen
		if n != w.at {
			happen = nil
		}
		w.mu.Unlock()
		if happen == nil {
			proxy.ServeHTTP(rw, r)
			return
		}
		happen(func() {
			answer := httptest.NewRecorder() // Vault acts, and the gateway does not hear of it
			proxy.ServeHTTP(answer, r.WithContext(context.WithoutCancel(r.Context())))
		})
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(w.Close)
	return w
}

// next sets what happens at the n-th request from now; 0 for never.
func (w *way) next(n int64, happen func(forward func())) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at, w.happen = w.requests.Load()+n, happen
	if n == 0 {
		w.at = 0
	}
}

// usernames are the PostgreSQL roles that Vault has made and not dropped.
func (w *vaultWorld) usernames() []string { return w.postgres.Roles(dynamicPrefix) }
