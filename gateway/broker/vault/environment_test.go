package vault_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/broker/vault"
	"github.com/sallyport/sallyport/gateway/fault"
)

// What a client of Vault could take from its environment: all of it is set to what
// leads elsewhere, and nothing changes: not where it goes, not how it is verified, not
// one header.
func TestTheEnvironmentChangesNothing(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s goes elsewhere", r.Method, r.URL)
	}))
	defer elsewhere.Close()
	untrusted := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a server that nobody vouches for is asked")
	}))
	defer untrusted.Close()
	for name, value := range map[string]string{
		"VAULT_ADDR": elsewhere.URL, "VAULT_AGENT_ADDR": elsewhere.URL, "VAULT_PROXY_ADDR": elsewhere.URL, "VAULT_HTTP_PROXY": elsewhere.URL,
		"HTTP_PROXY": elsewhere.URL, "HTTPS_PROXY": elsewhere.URL, "http_proxy": elsewhere.URL, "https_proxy": elsewhere.URL,
		"ALL_PROXY": elsewhere.URL, "NO_PROXY": "", "VAULT_TOKEN": "hvs.environment", "VAULT_NAMESPACE": "environment",
		"VAULT_HEADERS": `{"X-Environment":"1","Authorization":"Bearer x"}`, "VAULT_MFA": "environment", "VAULT_WRAP_TTL": "60s",
		"VAULT_SKIP_VERIFY": "true", "VAULT_TLS_SERVER_NAME": "environment", "VAULT_SRV_LOOKUP": "true", "VAULT_MAX_RETRIES": "9",
		"VAULT_RATE_LIMIT": "0.001:1", "VAULT_CLIENT_TIMEOUT": "1", "VAULT_DISABLE_REDIRECTS": "false", "VAULT_CLI_NO_COLOR": "1",
		"VAULT_CACERT_BYTES": "", "VAULT_FORMAT": "yaml", "VAULT_REDIRECT_ADDR": elsewhere.URL, "VAULT_API_ADDR": elsewhere.URL,
	} {
		t.Setenv(name, value)
	}
	f := newFake(t)
	f.config.Namespace = "ours"
	f.says("auth/token/lookup-self", 200, `{"data":{"namespace_path":"ours/"}}`)
	s := f.source(t)
	_, err := tryIssue(t, s, database("app"))
	check(t, err)
	f.says("auth/token/create/sallyport", 503, `{"errors":["busy"]}`)
	_, err = s.Prepare(t.Context(), order(database("app"), time.Minute))
	wantReason(t, "busy", err, fault.SourceUnavailable)
	if n := f.count("auth/token/create/sallyport"); n != 2 {
		t.Errorf("asked %d times", n)
	}
	tokens := map[string]string{
		"/v1/auth/approle/login": "", "/v1/auth/token/create/sallyport": "hvs.own", "/v1/auth/token/lookup-self": "hvs.own", "/v1/database/creds/app": "hvs.child",
	}
	for _, r := range f.requests() {
		want := []string{"User-Agent", "X-Vault-Namespace", "X-Vault-Request"}
		if r.Method == http.MethodPut {
			want = append(want, "Content-Length", "Content-Type")
		}
		if r.URL.Path == "/v1/database/creds/app" {
			want = append(want, "Connection") // it is not used again
		}
		if tokens[r.URL.Path] != "" {
			want = append(want, "X-Vault-Token")
		}
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(r.Header)); !slices.Equal(got, want) {
			t.Errorf("%s has headers %q, want %q", r.URL.Path, got, want)
		}
		if r.Header.Get("X-Vault-Token") != tokens[r.URL.Path] || r.Header.Get("X-Vault-Namespace") != "ours" || r.URL.RawQuery != "" {
			t.Errorf("%s %v", r.URL, r.Header)
		}
	}
	// Nobody is there, and what is not on this machine is what proxies are for.
	f.config.Address = "https://vault.invalid:8200"
	_, err = tryIssue(t, f.source(t), database("app"))
	wantReason(t, "an address of nobody", err, fault.SourceUnavailable)
	f.config.Address, f.config.Timeout = untrusted.URL, time.Minute // a handshake on a busy machine
	_, err = tryIssue(t, f.source(t), database("app"))
	wantReason(t, "a server that nobody vouches for", err, fault.SourceUntrusted)
}

func TestAnEnvironmentThatTheLibraryDoesNotUnderstandIsNamed(t *testing.T) {
	t.Setenv("VAULT_RATE_LIMIT", "nonsense")
	f := newFake(t)
	if s, err := vault.New(f.config); err == nil {
		s.Close()
		t.Error("it is accepted")
	}
}
