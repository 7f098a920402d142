package vault_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/broker/vaulttest"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
)

var ruleGrammar = regexp.MustCompile(`path "([^"]+)" \{\n  capabilities = \["(read|update)"\]`)

// recorder stands before a Vault and notes who asked for what.
func recorder(t *testing.T, l *lab) (asked func(token func(string) bool) map[string]bool) {
	t.Helper()
	to, err := url.Parse(l.Address)
	check(t, err)
	var mu sync.Mutex
	var notes [][2]string
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		capability := map[string]string{http.MethodGet: "read", http.MethodPut: "update"}[r.In.Method]
		mu.Lock()
		notes = append(notes, [2]string{r.In.Header.Get("X-Vault-Token"), capability + " " + strings.TrimPrefix(r.In.URL.Path, "/v1/")})
		mu.Unlock()
	}}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	l.config.Address = server.URL
	return func(mine func(string) bool) map[string]bool {
		mu.Lock()
		defer mu.Unlock()
		all := map[string]bool{}
		for _, n := range notes {
			if n[0] != "" && mine(n[0]) {
				all[n[1]] = true
			}
		}
		return all
	}
}

// Every other test shows that the documents suffice. This one shows that none of the
// gateway's rules is for nothing.
func TestTheGatewaysPolicyAllowsNothingThatIsNotAskedFor(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Must(http.MethodPost, "secret/data/least", map[string]any{"data": map[string]any{"a": "b"}})
	l.appRole(t, map[string]any{"token_ttl": "3s", "token_max_ttl": "1h"})
	asked := recorder(t, l)
	roles := []lease.Role{database("app"), certificate(), kv("least")}
	s := l.source(t, roles...)
	_, anchor := issue(t, s, order(database("app"), time.Minute))
	_, err := s.Renew(t.Context(), anchor, time.Minute, time.Now().Add(time.Hour))
	check(t, err)
	check(t, s.Revoke(t.Context(), anchor))
	_, other := issue(t, s, order(certificate(), time.Minute))
	check(t, s.Revoke(t.Context(), other))
	_, err = s.Newest(t.Context(), kv("least").Parameters)
	check(t, err)
	_, err = s.Newest(t.Context(), kv("something/else").Parameters)
	wantReason(t, "another secret", err, fault.SourceRefused)
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		_, err = s.Inspect(t.Context(), anchor)
		check(t, err)
	}
	s.Close()

	calls := asked(func(string) bool { return true })
	for _, rule := range ruleGrammar.FindAllStringSubmatch(s.Policy(roles)[0].GetContent(), -1) {
		used := false
		for c := range calls {
			capability, at, _ := strings.Cut(c, " ")
			matches := at == rule[1] || strings.HasSuffix(rule[1], "/*") && strings.HasPrefix(at, strings.TrimSuffix(rule[1], "*"))
			used = used || matches && capability == rule[2]
		}
		if !used {
			t.Errorf("%s on %s is for nothing; asked was %v", rule[2], rule[1], calls)
		}
	}
}

func TestTheGatewaysTokenOpensNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Must(http.MethodPost, "secret/data/closed", map[string]any{"data": map[string]any{"a": "b"}})
	s := l.source(t, database("app"), certificate(), kv("closed"))
	login := func() string {
		id, err := os.ReadFile(l.config.AppRole.SecretIDFile)
		check(t, err)
		token, _, err := l.Login("approle", map[string]any{"role_id": l.config.AppRole.RoleID, "secret_id": strings.TrimSpace(string(id))})
		check(t, err)
		return token
	}
	token := login()
	_, anchor := issue(t, s, order(database("app"), time.Minute))
	child := func(policy string) map[string]any {
		return map[string]any{"policies": []string{policy}, "no_default_policy": true}
	}
	for _, call := range []vaulttest.Request{
		{Method: http.MethodGet, Path: "database/creds/app"},
		{Method: http.MethodGet, Path: "secret/data/closed"},
		{Method: http.MethodPut, Path: "pki/issue/app", Body: map[string]any{"common_name": "x"}},
		{Method: http.MethodPut, Path: "auth/token/create", Body: child(l.prefix + ".acme.app")},
		{Method: http.MethodPut, Path: "auth/token/create-orphan", Body: child(l.prefix + ".acme.app")},
		{Method: http.MethodPut, Path: "auth/token/create/" + l.prefix, Body: child("root")},
		{Method: http.MethodPut, Path: "auth/token/create/" + l.prefix, Body: child(l.prefix + "-gateway")},
		{Method: http.MethodPut, Path: "sys/leases/revoke-force/database/creds/app"},
		{Method: http.MethodPut, Path: "sys/leases/revoke-prefix/database/creds/app"},
		{Method: http.MethodPut, Path: "sys/leases/revoke", Body: map[string]any{"lease_id": anchor.Ref}},
		{Method: "LIST", Path: "sys/leases/lookup/database/creds/app"},
		{Method: "LIST", Path: "auth/token/accessors"},
		{Method: http.MethodGet, Path: "sys/policies/acl/" + l.prefix + "-gateway"},
		{Method: http.MethodGet, Path: "sys/mounts"},
	} {
		if _, err := l.DoAs(token, call.Method, call.Path, call.Body); err == nil {
			t.Errorf("%s %s is allowed", call.Method, call.Path)
		}
	}
}

// A child token opens one thing, with the parameters of its role.
func TestAChildTokenOpensOneThing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := l.source(t, database("app"), certificate(), dynamic("pki/issue/app", map[string]string{"common_name": `a "b" \ c`}))
	mint := func(name string) string {
		answer := l.Must(http.MethodPut, "auth/token/create/"+l.prefix, map[string]any{
			"policies": []string{l.prefix + ".acme." + name}, "no_default_policy": true, "ttl": "60s",
		})
		return vaulttest.Lookup(answer, "auth", "client_token")
	}
	_ = s
	names := "a.example.org,b.example.org"
	for what, test := range map[string]struct {
		role, path string
		body       map[string]any
		allowed    bool
	}{
		"its own":               {"tls", "pki/issue/app", map[string]any{"common_name": "app.example.org", "alt_names": names, "ttl": "60s", "format": "pem"}, true},
		"another name":          {"tls", "pki/issue/app", map[string]any{"common_name": "root.example.org"}, false},
		"other names":           {"tls", "pki/issue/app", map[string]any{"common_name": "app.example.org", "alt_names": "evil.example.org"}, false},
		"another parameter":     {"tls", "pki/issue/app", map[string]any{"common_name": "app.example.org", "ip_sans": "10.0.0.1"}, false},
		"another path":          {"tls", "pki/sign/app", map[string]any{"common_name": "app.example.org"}, false},
		"a certificate for db":  {"app", "pki/issue/app", map[string]any{"common_name": "app.example.org"}, false},
		"itself":                {"app", "auth/token/lookup-self", nil, false},
		"quotes in a parameter": {"dynamic", "pki/issue/app", map[string]any{"common_name": `a "b" \ c`}, true},
		"no quotes":             {"dynamic", "pki/issue/app", map[string]any{"common_name": `a b c`}, false},
	} {
		_, err := l.DoAs(mint(test.role), http.MethodPut, test.path, test.body)
		if (err == nil) != test.allowed {
			t.Errorf("%s: %v", what, err)
		}
	}
}
