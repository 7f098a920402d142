//go:build measure

package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/cmd/hammer/internal/loop"
	"github.com/sallyport/sallyport/gateway/broker/vaulttest"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

var leaseCount = flag.Int("leases", 10_000, "TestMeasureStorm, TestMeasureLeases: how many")

// TestMeasureBrokering compares asking Vault directly, with a long-lived token and with
// a child token for each, with asking Sallyport, in turns:
//
//	go test -tags measure ./cmd/hammer -run TestMeasureBrokering -v
func TestMeasureBrokering(t *testing.T) {
	w := newVaultWorld(t)
	g := w.gateway(t, nil)
	token := w.lender(t)
	for _, kind := range []struct{ name, path, role string }{
		{"database", "database/creds/app", databaseRole}, {"kv", "secret/data/app", kvRole},
	} {
		handles := w.handles(t, g, kind.role)
		var next atomic.Uint64
		lease := func(ctx context.Context, _ int) error {
			s, err := handles[next.Add(1)%uint64(len(handles))].Lease(ctx)
			if err == nil {
				s.Wipe()
			}
			return err
		}
		read := func(as string) error {
			_, err := w.vault.DoAs(as, http.MethodGet, kind.path, nil)
			return err
		}
		ways := []loop.Call{
			func(context.Context, int) error { return read(token) },
			func(context.Context, int) error {
				made, err := w.vault.DoAs(token, http.MethodPost, "auth/token/create/child", map[string]any{
					"policies": []string{"app"}, "no_default_policy": true, "num_uses": 2,
					"ttl": "10m", "explicit_max_ttl": "10m", "renewable": false,
				})
				if err != nil {
					return err
				}
				return read(vaulttest.Lookup(made, "auth", "client_token"))
			},
			lease,
		}
		for _, callers := range []int{1, 8} {
			inTurns(t, g, fmt.Sprintf("%s, %d callers", kind.name, callers), callers, ways)
		}
		paired(t, g, kind.name, lease)
	}
}

// handles are those of many workloads, so that none of them holds more than a service
// does. Each has leased once and is connected.
func (w *vaultWorld) handles(t *testing.T, g *server, role string) []sallyport.SecretRole {
	t.Helper()
	pairs, err := identities(t.Context(), g.Endpoints, role, crowdSize)
	must(t, err)
	s := &storm{role: role}
	closeAll, err := s.connect(t.Context(), g.Endpoints, pairs)
	must(t, err)
	t.Cleanup(closeAll)
	for _, h := range s.handles {
		must(t, s.ask(t.Context(), h))
	}
	return s.handles
}

// inTurns gives each way some turns, in alternating order.
func inTurns(t *testing.T, g *server, what string, callers int, ways []loop.Call) {
	t.Helper()
	results := make([]loop.Result, len(ways))
	order := make([]int, len(ways))
	for i, call := range ways {
		order[i] = i
		loop.Run(t.Context(), callers, warmUp, call)
	}
	var source float64
	var used time.Duration // of the gateway's CPU, by the last way
	for range 5 {
		for _, i := range order {
			before, cpu := sourceSeconds(t, g), cpuOf(t, g)
			results[i].Merge(loop.Run(t.Context(), callers, time.Second, ways[i]))
			if i == len(ways)-1 {
				source += sourceSeconds(t, g) - before
				used += cpuOf(t, g) - cpu
			}
		}
		slices.Reverse(order)
	}
	names := []string{"read", "child token, read", "through Sallyport"}
	for i, r := range results {
		if r.Failed > 0 {
			t.Errorf("%s: %s: %d failed: %v", what, names[i], r.Failed, r.Err)
		}
		mean := r.Elapsed.Seconds() * float64(callers) / float64(r.Ops) * 1e3
		t.Logf("%s: %-18s p50 %6.2f ms, p99 %6.2f ms, mean %6.2f ms (%d)", what, names[i],
			milliseconds(r.Latency.Quantile(0.5)), milliseconds(r.Latency.Quantile(0.99)), mean, r.Ops)
	}
	leased := float64(results[len(ways)-1].Ops)
	t.Logf("%s: of which the source took, mean %.2f ms; CPU of the gateway %.2f ms for each", what,
		source/leased*1e3, used.Seconds()/leased*1e3)
}

func cpuOf(t *testing.T, g *server) time.Duration {
	t.Helper()
	used, err := g.CPU()
	must(t, err)
	return used
}

func sourceSeconds(t *testing.T, g *server) float64 {
	return metric(t, g.Endpoints, "sallyport_source_seconds_sum")
}

// paired measures for single calls what they took beyond what the source took for them.
func paired(t *testing.T, g *server, what string, lease loop.Call) {
	t.Helper()
	var beyond loop.Histogram
	for range 300 {
		before := sourceSeconds(t, g)
		start := time.Now()
		must(t, lease(t.Context(), 0))
		took := time.Since(start)
		beyond.Add(took - time.Duration((sourceSeconds(t, g)-before)*float64(time.Second)))
	}
	t.Logf("%s: a call takes beyond the source p50 %.2f ms, p90 %.2f ms, p99 %.2f ms", what,
		milliseconds(beyond.Quantile(0.5)), milliseconds(beyond.Quantile(0.9)), milliseconds(beyond.Quantile(0.99)))
}

// lender makes a token that may read directly, and make tokens that may.
func (w *vaultWorld) lender(t *testing.T) string {
	t.Helper()
	const reads = `path "secret/data/app" { capabilities = ["read"] }
		path "database/creds/app" { capabilities = ["read"] }
		`
	must(t, vaulttest.WritePolicy(w.vault, "app", reads))
	must(t, vaulttest.WritePolicy(w.vault, "lend", reads+`path "auth/token/create/child" { capabilities = ["update"] }`))
	w.vault.Must(http.MethodPost, "auth/token/roles/child", map[string]any{
		"orphan": true, "allowed_policies": []string{"app"}, "token_no_default_policy": true, "renewable": false,
	})
	made := w.vault.Must(http.MethodPost, "auth/token/create-orphan", map[string]any{
		"policies": []string{"lend"}, "no_default_policy": true, "ttl": "24h",
	})
	return vaulttest.Lookup(made, "auth", "client_token")
}

const crowdSize = 200

// TestMeasureStorm has ten thousand services start in the same second:
//
//	go test -tags measure ./cmd/hammer -run TestMeasureStorm -timeout 30m -v
func TestMeasureStorm(t *testing.T) {
	const defaultPlaces = 16
	for _, role := range []string{kvRole, databaseRole} {
		t.Run(filepath.Base(role), func(t *testing.T) {
			w := newVaultWorld(t)
			way := newWay(t, w.vault.Address)
			g := w.gateway(t, way)
			pairs, err := identities(t.Context(), g.Endpoints, role, crowdSize)
			must(t, err)
			vault, err := w.vault.CPU()
			must(t, err)
			end := w.watchHealth(t)
			s := &storm{
				role: role, services: *leaseCount, within: time.Second, timeout: 15 * time.Minute,
				shortest: 5 * time.Minute, longest: 7 * time.Minute,
			}
			said, err := s.rage(t.Context(), g.Endpoints, pairs)
			t.Log(said.Note)
			must(t, err)
			end()
			after, err := w.vault.CPU()
			must(t, err)
			issuing, all := way.most()
			t.Logf("at Vault at once: at most %d calls that issue, %d in all; CPU of Vault %v", issuing, all, after-vault)
			if issuing > defaultPlaces || all > defaultPlaces+defaultPlaces/4+1 {
				t.Error("that is more than allowed")
			}
			sweepCost(t, g)
		})
	}
}

// TestMeasureLeases measures what ten thousand leases of the gateway's own authority cost
// while they live, at a restart, and while they end:
//
//	go test -tags measure ./cmd/hammer -run TestMeasureLeases -timeout 30m -v
func TestMeasureLeases(t *testing.T) {
	const role = demoTenant + "/secretRoles/many"
	bin, err := filepath.Abs(*programs)
	must(t, err)
	dir := t.TempDir()
	g, err := startGateway(t.Context(), bin, dir)
	must(t, err)
	control, err := g.DialControl(t.Context())
	must(t, err)
	makeRole(t, control, role, "local", &controlv1.SecretParameters{
		Kind: &controlv1.SecretParameters_LocalCertificate{LocalCertificate: &controlv1.LocalCertificate{}},
	})
	must(t, control.Close())
	pairs, err := identities(t.Context(), g.Endpoints, role, crowdSize)
	must(t, err)
	restart := func(what string) {
		t.Helper()
		g.Stop()
		g, err = startGateway(t.Context(), bin, dir)
		must(t, err)
		t.Logf("%s: ready after a restart in %v", what, g.Ready())
	}
	defer func() { g.Stop() }()
	restart("no lease")
	cpu(t, g, "no lease", time.Minute)
	resident(t, g, "no lease, a minute after the start")

	s := &storm{
		role: role, services: *leaseCount, within: 2 * time.Minute, timeout: 5 * time.Minute,
		shortest: 6 * time.Minute, longest: 8 * time.Minute,
	}
	said, err := s.rage(t.Context(), g.Endpoints, pairs)
	t.Log(said.Note)
	must(t, err)
	resident(t, g, "all leased")
	must(t, g.Settle(t.Context()))
	cpu(t, g, "all live, none due", time.Minute)
	resident(t, g, "all live, after a minute of rest")
	pause(t.Context(), 90*time.Second) // Go collects every two minutes where nothing else makes it
	resident(t, g, "all live, after two and a half minutes of rest")
	restart("all live")
	pause(t.Context(), 10*time.Second)
	resident(t, g, "all live, after the restart")
	sweepCost(t, g)
	resident(t, g, "all ended")
}

func resident(t *testing.T, g *server, what string) {
	t.Helper()
	memory, err := g.Memory()
	must(t, err)
	m, err := g.ReadMetrics(t.Context())
	must(t, err)
	t.Logf("%s: %.1f MiB resident, %.1f MiB of heap, %.0f goroutines", what, float64(memory)/(1<<20),
		m["go_memstats_heap_alloc_bytes"]/(1<<20), m["go_goroutines"])
}

func cpu(t *testing.T, g *server, what string, d time.Duration) {
	t.Helper()
	before := cpuOf(t, g)
	pause(t.Context(), d)
	t.Logf("%s: %v of CPU in %v", what, cpuOf(t, g)-before, d)
}

// sweepCost waits until no lease is live, and says what their ends cost.
func sweepCost(t *testing.T, g *server) {
	t.Helper()
	const every = 2 * time.Second
	var first, last time.Time
	var begun, used time.Duration
	var before float64
	left := liveLeases(t, g)
	for left > 0 {
		earlier := cpuOf(t, g)
		if !pause(t.Context(), every) {
			t.Fatal(t.Context().Err())
		}
		now := liveLeases(t, g)
		switch {
		case now < left && first.IsZero():
			first, begun, before = time.Now().Add(-every), earlier, left
		case now == left:
			continue
		}
		left, last, used = now, time.Now(), cpuOf(t, g)
	}
	span := last.Sub(first)
	t.Logf("%.0f leases ended in %.0f s: CPU %v, %.2f %% of a core, %.2f ms for each", before, span.Seconds(), used-begun,
		(used-begun).Seconds()/span.Seconds()*100, (used-begun).Seconds()*1e3/before)
}

// liveLeases is how many leases are reserved, active or ending.
func liveLeases(t *testing.T, g *server) float64 {
	t.Helper()
	reply, err := http.Get("http://" + g.Ops + "/metrics")
	must(t, err)
	defer reply.Body.Close()
	var live float64
	for lines := bufio.NewScanner(reply.Body); lines.Scan(); {
		if line := lines.Text(); strings.HasPrefix(line, "sallyport_leases{") && !strings.Contains(strings.ToLower(line), "gone") {
			var n float64
			_, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &n)
			must(t, err)
			live += n
		}
	}
	return live
}
