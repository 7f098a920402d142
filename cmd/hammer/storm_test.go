package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/cmd/hammer/internal/target"
	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
)

// places is how many calls that issue a gateway of these tests lets through at once.
const places = 8

// stormy starts a gateway before the world's Vault that lets few through, and lets not
// all of a storm wait.
func (w *vaultWorld) stormy(t *testing.T, waiting int) (target.Endpoints, *way) {
	t.Helper()
	way, source := newWay(t, w.vault.Address), w.source
	source.Address = way.URL
	gw := gatewaytest.Start(t, gatewaytest.WithConfig(func(c *config.Config) {
		c.Sources.Vault = append(c.Sources.Vault, source)
		c.Leases.Concurrency, c.Leases.Waiting, c.Leases.Patience = places, waiting, time.Minute
		c.Leases.IssueTimeout, c.Leases.PerSecond, c.Leases.Burst = time.Minute, 1000, 1000
	}))
	e, err := target.ReadEndpoints(filepath.Join(gw.Dir, target.FileName))
	must(t, err)
	w.roles(t, e)
	return e, way
}

// eventually waits for what happens outside of this process, or outside of our sight.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in a minute: ", what)
		}
	}
}

func metric(t *testing.T, e target.Endpoints, name string) float64 {
	t.Helper()
	m, err := e.ReadMetrics(t.Context())
	must(t, err)
	return m[name]
}

func TestStorm(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts servers and runs storms")
	}
	w := newVaultWorld(t)
	t.Run("does not take Vault down", w.isSpared)
	t.Run("leaves a turn to the modest", w.isFair)
}

// Services that start in the same moment, many more than may ask or wait at once, do not
// take Vault down: no more calls than configured reach it at a time, it answers
// throughout, and in the end every service has a credential of its own.
func (w *vaultWorld) isSpared(t *testing.T) {
	const services, workloads, waiting = 200, 10, 120
	e, way := w.stormy(t, waiting)
	pairs, err := identities(t.Context(), e, databaseRole, workloads)
	must(t, err)
	end := w.watchHealth(t)
	open := way.close()
	s := &storm{role: databaseRole, services: services, timeout: 2 * time.Minute}
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		defer open()
		// Until all that have room wait and one has been told that there is none, which
		// never comes if nothing bounds them.
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); pause(t.Context(), 10*time.Millisecond) {
			_, failed := s.calls.sums()
			if issuing, _ := way.most(); issuing >= places && failed[string(sallyport.SourceThrottled)] > 0 {
				return
			}
		}
	}()
	said, err := s.rage(t.Context(), e, pairs)
	t.Log(said.Note)
	must(t, err)
	<-opened
	end()

	issuing, all := way.most()
	// Beside those that issue: those that end leases, a quarter as many, and one that
	// keeps the gateway's own token.
	if issuing != places || all > places+max(2, places/4)+1 {
		t.Errorf("%d calls that issue were at Vault at once, and %d in all; allowed are %d", issuing, all, places)
	}
	if _, failed := s.calls.sums(); failed[string(sallyport.SourceThrottled)] == 0 {
		t.Errorf("nobody was told to come later; refusals: %v", failed)
	}
	// On a machine that is too slow there are more: those whose answer came too late.
	if users := len(w.postgres.Roles("v-")); users < services {
		t.Errorf("%d roles in PostgreSQL for %d services", users, services)
	}
}

// A workload that asks for little has its turn beside one that asked for very much
// before it.
func (w *vaultWorld) isFair(t *testing.T) {
	const greedy, modest = 200, 5
	e, way := w.stormy(t, 10_000)
	pairs, err := identities(t.Context(), e, kvRole, 2)
	must(t, err)
	open := way.close()
	defer open()
	ended := make(chan error, 2)
	let := func(services int, pair target.Pair) {
		s := &storm{role: kvRole, services: services, timeout: time.Minute}
		before := metric(t, e, "sallyport_audit_records_total")
		go func() {
			_, err := s.rage(t.Context(), e, []target.Pair{pair})
			ended <- err
		}()
		// The intent of each call is on record just before it comes to its turn.
		eventually(t, "the arrival of the calls", func() bool {
			return metric(t, e, "sallyport_audit_records_total") >= before+float64(services)
		})
	}
	let(greedy, pairs[0])
	let(modest, pairs[1])
	open()
	must(t, <-ended)
	must(t, <-ended)

	last, asked := 0, way.order()
	for i, who := range asked {
		if strings.HasSuffix(who, "/hammer-001") {
			last = i + 1
		}
	}
	// By turns: behind those that were at Vault already, one for each of the other's; the
	// rest is for calls between their record and their turn.
	if len(asked) != greedy+modest || last > greedy/2 {
		t.Errorf("the last of %d calls for the modest was number %d of %d", modest, last, len(asked))
	}
	t.Logf("the last of the modest was number %d of %d", last, len(asked))
}
