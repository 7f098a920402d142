package vault_test

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/broker/vault"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
)

const canary = "c4n4ry-password"

// fake answers like a Vault, or as a test says.
type fake struct {
	*httptest.Server
	config vault.Config

	mu      sync.Mutex
	answers map[string]http.HandlerFunc // by path
	asked   []*http.Request
	bodies  []string
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{answers: map[string]http.HandlerFunc{}}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	l := &lab{}
	f.config = vault.Config{
		Name: "fake", Address: f.URL, Timeout: 4 * time.Second, RequestLimit: time.Second,
		AppRole: &vault.AppRole{RoleID: "role", SecretIDFile: l.file(t, "secret-id", "secret")},
	}
	f.says("auth/approle/login", 200, `{"auth":{"client_token":"hvs.own","accessor":"own","lease_duration":3600,"renewable":true,"token_type":"service"}}`)
	f.says("auth/token/create/sallyport", 200, child(nil))
	f.says("auth/token/lookup-self", 200, `{"data":{}}`)
	f.says("auth/token/revoke-self", 204, "")
	f.says("auth/token/revoke-accessor", 204, "")
	f.says("auth/token/lookup-accessor", 403, `{"errors":["1 error occurred:\n\t* invalid accessor\n\n"]}`)
	f.says("sys/leases/lookup", 400, `{"errors":["invalid lease"]}`)
	f.says("sys/leases/revoke/database/creds/app/x", 204, "")
	f.says("database/creds/app", 200, credential(nil))
	return f
}

// secure makes it speak TLS instead.
func (f *fake) secure(t *testing.T) {
	t.Helper()
	f.Server = httptest.NewTLSServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	f.config.Address = f.URL
	f.config.CAFile = (&lab{}).file(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw})))
}

// child is an answer with a child token, changed in some members.
func child(change map[string]any) string {
	auth := map[string]any{
		"client_token": "hvs.child", "accessor": "acc", "lease_duration": 60, "renewable": false, "token_type": "service",
		"orphan": true, "num_uses": 2, "policies": []string{"sallyport.acme.app"},
	}
	for k, v := range change {
		auth[k] = v
	}
	text, _ := json.Marshal(map[string]any{"auth": auth})
	return string(text)
}

func credential(change map[string]any) string {
	all := map[string]any{
		"lease_id": "database/creds/app/x", "lease_duration": 3600, "renewable": true,
		"data": map[string]any{"username": "u", "password": canary},
	}
	for k, v := range change {
		all[k] = v
	}
	text, _ := json.Marshal(all)
	return string(text)
}

func (f *fake) does(path string, h http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers["/v1/"+path] = h
}

func (f *fake) says(path string, status int, text string) {
	f.does(path, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	})
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	h := f.answers[r.URL.Path]
	f.asked, f.bodies = append(f.asked, r), append(f.bodies, string(body))
	f.mu.Unlock()
	if h == nil {
		http.Error(w, `{"errors":[]}`, http.StatusNotFound)
		return
	}
	h(w, r)
}

func (f *fake) requests() []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*http.Request(nil), f.asked...)
}

func (f *fake) sent() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.bodies...)
}

func (f *fake) count(path string) (n int) {
	for _, r := range f.requests() {
		if r.URL.Path == "/v1/"+path {
			n++
		}
	}
	return n
}

func (f *fake) source(t *testing.T) *vault.Source {
	t.Helper()
	s, err := vault.New(f.config)
	check(t, err)
	t.Cleanup(s.Close)
	return s
}

func tryIssue(t *testing.T, s *vault.Source, r lease.Role) (lease.Issued, error) {
	t.Helper()
	ticket, err := s.Prepare(t.Context(), order(r, time.Minute))
	if err != nil {
		return lease.Issued{}, err
	}
	return ticket.Issue(t.Context())
}

// wantQuiet checks the reason of a failure, and that nothing secret is in it.
func wantQuiet(t *testing.T, what string, err error, want fault.Reason) {
	t.Helper()
	wantReason(t, what, err, want)
	if err != nil && (strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), "hvs.")) {
		t.Errorf("%s: a secret in %v", what, err)
	}
}
