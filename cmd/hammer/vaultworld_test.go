package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/cmd/hammer/internal/target"
	"github.com/sallyport/sallyport/gateway/broker/vaulttest"
	"github.com/sallyport/sallyport/gateway/config"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// vaultWorld is a real Vault over a real PostgreSQL.
type vaultWorld struct {
	vault    *vaulttest.Vault
	postgres *vaulttest.Postgres
	source   config.Vault // as a gateway signs in to it
}

const (
	databaseRole = demoTenant + "/secretRoles/db"
	kvRole       = demoTenant + "/secretRoles/kv"
)

func newVaultWorld(t *testing.T) *vaultWorld {
	t.Helper()
	w := &vaultWorld{vault: vaulttest.StartVault(t), postgres: vaulttest.StartPostgres(t)}
	must(t, vaulttest.EnableDatabase(w.vault, w.postgres, "app", time.Hour, 24*time.Hour))
	must(t, vaulttest.EnableKV(w.vault))
	w.vault.Must(http.MethodPost, "secret/data/app", map[string]any{"data": map[string]any{"password": "one"}})
	roleID, secretID, err := vaulttest.EnableAppRole(w.vault, "sallyport-gateway")
	must(t, err)
	file := filepath.Join(t.TempDir(), "secret-id")
	must(t, os.WriteFile(file, []byte(secretID), 0o600))
	w.source = config.Vault{
		Name: "vault", Address: w.vault.Address, Timeout: 30 * time.Second,
		AppRole: &config.VaultAppRole{RoleID: roleID, SecretIDFile: file},
	}
	return w
}

// roles makes the roles db and kv, as the operator does, and gives the gateway in Vault
// what it says that it needs for them.
func (w *vaultWorld) roles(t *testing.T, e target.Endpoints) {
	t.Helper()
	control, err := e.DialControl(t.Context())
	must(t, err)
	defer func() { _ = control.Close() }()
	for name, p := range map[string]*controlv1.SecretParameters{
		databaseRole: {Kind: &controlv1.SecretParameters_VaultDatabase{
			VaultDatabase: &controlv1.VaultDatabase{Mount: vaulttest.DatabaseMount, Role: "app"},
		}},
		kvRole: {Kind: &controlv1.SecretParameters_VaultKv{VaultKv: &controlv1.VaultKv{Mount: vaulttest.KVMount, Path: "app"}}},
	} {
		makeRole(t, control, name, "vault", p)
	}
	needs, err := control.SecretRoles.GetSourcePolicy(t.Context(), &controlv1.GetSourcePolicyRequest{Name: "sources/vault"})
	must(t, err)
	for _, d := range needs.GetDocuments() {
		if d.GetKind() == "policy" {
			must(t, vaulttest.WritePolicy(w.vault, d.GetName(), d.GetContent()))
			continue
		}
		var body map[string]any
		must(t, json.Unmarshal([]byte(d.GetContent()), &body))
		w.vault.Must(http.MethodPost, "auth/token/roles/"+d.GetName(), body)
	}
}

// makeRole makes a role of which a workload may hold as much as there can be.
func makeRole(t *testing.T, control *sallyport.Control, name, source string, p *controlv1.SecretParameters) {
	t.Helper()
	_, err := control.SecretRoles.CreateSecretRole(t.Context(), &controlv1.CreateSecretRoleRequest{
		Parent: demoTenant, SecretRoleId: filepath.Base(name), Source: source, Parameters: p, QuotaPerWorkload: 10_000,
		MaxLifetime: durationpb.New(time.Hour), DefaultLifetime: durationpb.New(20 * time.Minute),
	})
	must(t, err)
}

// way is a proxy in front of Vault that counts.
type way struct {
	*httptest.Server
	transport http.RoundTripper

	mu          sync.Mutex
	at, peak    int           // calls that issue
	all, allMax int           // calls of every kind
	issued      []string      // for whom child tokens were asked, in order
	closed      chan struct{} // if set, calls that issue wait until it is closed
}

func newWay(t *testing.T, address string) *way {
	t.Helper()
	u, err := url.Parse(address)
	must(t, err)
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	w := &way{transport: transport}
	proxy := httputil.NewSingleHostReverseProxy(u)
	proxy.Transport = w
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	w.Server = httptest.NewServer(proxy)
	t.Cleanup(func() { w.Close(); transport.CloseIdleConnections() })
	return w
}

// RoundTrip implements http.RoundTripper. The answer is whole, and the call over, before
// the gateway sees any of it.
func (w *way) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := w.enter(r); err != nil {
		return nil, err
	}
	defer w.leave(r)
	answer, err := w.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	answer.Body = io.NopCloser(bytes.NewReader(body))
	return answer, err
}

const createsToken = "/v1/auth/token/create/"

// issues reports whether a call is one of the two that issuing takes.
func issues(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, createsToken) || strings.Contains(r.URL.Path, "/creds/") || strings.Contains(r.URL.Path, "/data/")
}

func (w *way) enter(r *http.Request) error {
	var meta struct{ Meta map[string]string }
	if strings.HasPrefix(r.URL.Path, createsToken) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(body, &meta); err != nil {
			return err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	w.mu.Lock()
	if meta.Meta != nil {
		w.issued = append(w.issued, meta.Meta["sallyport_workload"])
	}
	w.all++
	w.allMax = max(w.all, w.allMax)
	if issues(r) {
		w.at++
		w.peak = max(w.at, w.peak)
	}
	closed := w.closed
	w.mu.Unlock()
	if closed != nil && issues(r) {
		select {
		case <-closed:
		case <-r.Context().Done():
		}
	}
	return nil
}

func (w *way) leave(r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all--
	if issues(r) {
		w.at--
	}
}

// close holds calls that issue until the returned function is called.
func (w *way) close() (open func()) {
	closed := make(chan struct{})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = closed
	return sync.OnceFunc(func() {
		w.mu.Lock()
		w.closed = nil
		w.mu.Unlock()
		close(closed)
	})
}

// most is how many calls were at Vault at once: those that issue, and all.
func (w *way) most() (issuing, all int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.peak, w.allMax
}

// order is for whom child tokens were asked for.
func (w *way) order() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.issued)
}

// watchHealth asks Vault again and again how it is, until the returned function is
// called, which fails the test if Vault ever did not answer that it is well.
func (w *vaultWorld) watchHealth(t *testing.T) (end func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var asked int
	var failure error
	var watch sync.WaitGroup
	watch.Go(func() {
		for failure == nil {
			_, err := w.vault.DoAs("", http.MethodGet, "sys/health", nil)
			failure, asked = err, asked+1
			if !pause(ctx, 50*time.Millisecond) {
				return
			}
		}
	})
	return func() {
		stop()
		watch.Wait()
		if failure != nil || asked == 0 {
			t.Errorf("Vault was asked %d times how it is: %v", asked, failure)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
