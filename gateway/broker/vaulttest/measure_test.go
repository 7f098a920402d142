//go:build measure

package vaulttest_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/broker/vaulttest"
)

// measured is how often each way is gone.
const measured = 300

// TestMeasureWaysToBorrow compares reading with one long-lived token, and revoking the
// lease, with an orphan child token for every borrower, revoked by its accessor.
//
//	go test -tags measure -run Measure -v ./gateway/broker/vaulttest
func TestMeasureWaysToBorrow(t *testing.T) {
	for _, storage := range []struct {
		name    string
		options []vaulttest.Option
	}{{"memory", nil}, {"files", []vaulttest.Option{vaulttest.WithFileStorage()}}} {
		v, pg := vaulttest.StartVault(t, storage.options...), vaulttest.StartPostgres(t)
		prepare(t, v, pg)
		long := v.Must(http.MethodPost, "auth/token/create-orphan", map[string]any{
			"policies": []string{"lend"}, "no_default_policy": true, "ttl": "24h",
		})
		token := vaulttest.Lookup(long, "auth", "client_token")
		call := func(as, method, path string, body map[string]any) map[string]any {
			answer, err := v.DoAs(as, method, path, body)
			check(t, err)
			return answer
		}
		read := func(as, path string) string { return vaulttest.Lookup(call(as, http.MethodGet, path, nil), "lease_id") }
		revoke := func(lease string, sync bool) {
			call(token, http.MethodPut, "sys/leases/revoke", map[string]any{"lease_id": lease, "sync": sync})
		}
		borrow := func(path string) {
			made := call(token, http.MethodPost, "auth/token/create/child", map[string]any{
				"policies": []string{"app"}, "no_default_policy": true, "num_uses": 2,
				"ttl": "10m", "explicit_max_ttl": "10m", "renewable": false,
			})
			read(vaulttest.Lookup(made, "auth", "client_token"), path)
			call(token, http.MethodPost, "auth/token/revoke-accessor", map[string]any{
				"accessor": vaulttest.Lookup(made, "auth", "accessor"),
			})
		}
		for _, way := range []struct {
			name string
			once func()
		}{
			{"kv: read", func() { read(token, "secret/data/app") }},
			{"kv: child, read, revoke", func() { borrow("secret/data/app") }},
			{"database: read", func() { read(token, "database/creds/app") }},
			{"database: read, revoke lease, do not wait", func() { revoke(read(token, "database/creds/app"), false) }},
			{"database: read, revoke lease, wait", func() { revoke(read(token, "database/creds/app"), true) }},
			{"database: child, read, revoke", func() { borrow("database/creds/app") }},
			{"database: child, read, revoke, see the role gone", func() {
				borrow("database/creds/app")
				for len(pg.Roles("v-")) > 0 {
					time.Sleep(time.Millisecond)
				}
			}},
		} {
			way.once()
			elapsed, cpu := measure(t, v, way.once)
			t.Logf("%-7s %-50s %7.2f ms, Vault computes %6.2f ms", storage.name, way.name, elapsed, cpu)
			v.Must(http.MethodPut, "sys/leases/revoke-prefix/database/creds/app", nil)
			eventually(t, "the end of the roles", func() bool { return len(pg.Roles("v-")) == 0 })
		}
	}
}

func prepare(t *testing.T, v *vaulttest.Vault, pg *vaulttest.Postgres) {
	t.Helper()
	check(t, vaulttest.EnableKV(v))
	check(t, vaulttest.EnableDatabase(v, pg, "app", 10*time.Minute, time.Hour))
	v.Must(http.MethodPost, "secret/data/app", map[string]any{"data": map[string]any{"password": "one"}})
	check(t, vaulttest.WritePolicy(v, "app", `
		path "secret/data/app" { capabilities = ["read"] }
		path "database/creds/app" { capabilities = ["read"] }`))
	check(t, vaulttest.WritePolicy(v, "lend", `
		path "secret/data/app" { capabilities = ["read"] }
		path "database/creds/app" { capabilities = ["read"] }
		path "auth/token/create/child" { capabilities = ["update"] }
		path "auth/token/revoke-accessor" { capabilities = ["update"] }
		path "sys/leases/revoke" { capabilities = ["update"] }`))
	v.Must(http.MethodPost, "auth/token/roles/child", map[string]any{
		"orphan": true, "allowed_policies": []string{"app"}, "token_no_default_policy": true, "renewable": false,
	})
}

// measure returns milliseconds for one time: as they pass, and as Vault computes, with
// what it still does for revocations after it has answered.
func measure(t *testing.T, v *vaulttest.Vault, once func()) (elapsed, cpu float64) {
	t.Helper()
	before, err := v.CPU()
	check(t, err)
	start := time.Now()
	for range measured {
		once()
	}
	passed := time.Since(start)
	quiet := func() time.Duration {
		now, err := v.CPU()
		check(t, err)
		return now
	}
	after := quiet()
	for { // until it computes no more
		time.Sleep(300 * time.Millisecond)
		now := quiet()
		if now-after < 30*time.Millisecond {
			break
		}
		after = now
	}
	per := func(d time.Duration) float64 { return float64(d) / float64(measured) / float64(time.Millisecond) }
	return per(passed), per(after - before)
}
