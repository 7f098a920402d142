package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	random "math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/cmd/hammer/internal/loop"
	"github.com/sallyport/sallyport/cmd/hammer/internal/target"
)

// storm has very many services ask for a lease in the same second.
type storm struct {
	endpoints, role, out string
	services, identities int
	within, timeout      time.Duration
	// shortest and longest are the bounds of the lifetimes that are asked for; 0 for the
	// role's default.
	shortest, longest time.Duration

	handles []sallyport.SecretRole // of the connections, which the services share
	calls   tally
	mu      sync.Mutex
	waits   loop.Histogram // of the services that have a lease: from their start until then
}

func newStorm() *cobra.Command {
	s := &storm{}
	c := &cobra.Command{
		Use: "storm", Short: "Have very many services ask for a lease in the same second", Args: cobra.NoArgs,
		Long: `Have very many services ask for a lease in the same second.

Each service asks until it has one: after a reason that is temporary, or no answer in 40
seconds, it waits a random time, longer each time, as the Go client does for secrets that
are kept. The exit status is 1 if one of them was refused, or has none when the time is
over.

With --identities the services are so many workloads, hammer-000 and on, of a development
gateway: its authority, beside the endpoints file's CA, certifies them, the operator of
the endpoints file registers them, and the policy file hammer.cedar lets them lease the
role. Without, all are the workload of the endpoints file. The role must let each
workload hold its share of the leases, which are not revoked: they end by themselves.`,
		RunE: func(c *cobra.Command, _ []string) error { return s.run(c.Context()) },
	}
	f := c.Flags()
	f.StringVar(&s.endpoints, "endpoints", "", "the gateway's endpoints.json (required)")
	f.StringVar(&s.role, "role", demoTenant+"/secretRoles/certificate", "secret role to lease")
	f.IntVar(&s.services, "services", 10_000, "how many services")
	f.IntVar(&s.identities, "identities", 0, "how many workloads they are; 0 for the one of the endpoints file")
	f.DurationVar(&s.within, "within", time.Second, "the time in which all of them start")
	f.DurationVar(&s.timeout, "timeout", 10*time.Minute, "when to give up")
	f.DurationVar(&s.shortest, "lifetime", 0, "lifetime to ask for; 0 for the role's default")
	f.DurationVar(&s.longest, "longest-lifetime", 0, "ask for lifetimes between --lifetime and this, at random")
	f.StringVar(&s.out, "out", filepath.Join("build", "bench.jsonl"), "file to append a line of JSON to; empty for none")
	_ = c.MarkFlagRequired("endpoints") // it fails for flags that are not there
	return c
}

func (s *storm) run(ctx context.Context) (err error) {
	e, err := target.ReadEndpoints(s.endpoints)
	if err != nil {
		return err
	}
	out, err := newReport(s.out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.close()) }()
	pairs := []target.Pair{e.Workload}
	if s.identities > 0 {
		say("making %d workloads", s.identities)
		if pairs, err = identities(ctx, e, s.role, s.identities); err != nil {
			return err
		}
	}
	said, err := s.rage(ctx, e, pairs)
	if said.Note != "" {
		fmt.Println(said.Note)
		err = errors.Join(err, out.write(said))
	}
	return err
}

// streams is how many services share a connection at most: a gateway lets a thousand
// calls be under way on each.
const streams = 500

// connect makes connections for the workloads, which the services share evenly. None of
// them calls before its services do.
func (s *storm) connect(ctx context.Context, e target.Endpoints, pairs []target.Pair) (closeAll func(), err error) {
	var clients []*sallyport.Client
	closeAll = func() {
		for _, c := range clients {
			_ = c.Close() // of a run that is over
		}
	}
	for n := 0; n < len(pairs) || n*streams < s.services; n++ {
		one := e
		one.Workload = pairs[n%len(pairs)]
		client, err := one.Dial(ctx)
		if err != nil {
			closeAll()
			return nil, err
		}
		clients = append(clients, client)
		s.handles = append(s.handles, client.SecretRole(s.role))
	}
	return closeAll, nil
}

// rage lets the services loose, waits until each has its lease, and says how it went.
func (s *storm) rage(ctx context.Context, e target.Endpoints, pairs []target.Pair) (row, error) {
	closeAll, err := s.connect(ctx, e, pairs)
	if err != nil {
		return row{}, err
	}
	defer closeAll()
	before, err := e.ReadMetrics(ctx)
	if err != nil {
		return row{}, err
	}
	s.calls.start = time.Now()
	failures := s.loose(ctx)
	took := time.Since(s.calls.start)
	after, err := e.ReadMetrics(context.WithoutCancel(ctx))
	if err != nil {
		return row{}, err
	}
	cpu := none
	if used, ok := after.Since(before, target.CPUSeconds); ok {
		cpu = figure(used)
	}
	return s.row(took, cpu, len(pairs)), s.verdict(failures)
}

// loose starts the services, waits for their ends, and gives the first failures.
func (s *storm) loose(ctx context.Context) []error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	ticking, stop := context.WithCancel(ctx)
	var ticks, services sync.WaitGroup
	ticks.Go(func() { s.calls.printEvery(ticking, 10*time.Second) })
	var failures []error
	for i := range s.services {
		services.Go(func() {
			err := s.service(ctx, s.handles[i%len(s.handles)])
			if err == nil {
				return
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(failures) < 3 {
				failures = append(failures, err)
			}
		})
	}
	services.Wait()
	stop()
	ticks.Wait()
	return failures
}

// leaseTimeout bounds a call: the gateway lets one wait for its turn for 20 seconds
// before it begins, if it is not told otherwise.
const leaseTimeout = 40 * time.Second

// service asks for a lease until it has one, or is refused for good.
func (s *storm) service(ctx context.Context, role sallyport.SecretRole) error {
	if s.within > 0 && !pause(ctx, random.N(s.within)) {
		return ctx.Err()
	}
	start := time.Now()
	for tries := 0; ; tries++ {
		asked := time.Now()
		err := s.ask(ctx, role)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.calls.count("lease", time.Since(asked), err)
		if err == nil {
			s.mu.Lock()
			s.waits.Add(time.Since(start))
			s.mu.Unlock()
			return nil
		}
		// What runs a service starts it again when its call was not answered in time.
		var e *sallyport.Error
		if !errors.As(err, &e) || !e.Reason.Temporary() && e.Reason != sallyport.DeadlineExceeded {
			return err
		}
		if !pause(ctx, backoff(tries)) {
			return ctx.Err()
		}
	}
}

func (s *storm) ask(ctx context.Context, role sallyport.SecretRole) error {
	lifetime := s.shortest
	if s.longest > s.shortest {
		lifetime += random.N(s.longest - s.shortest)
	}
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	secret, err := role.Lease(ctx, sallyport.Lifetime(lifetime.Truncate(time.Second)))
	if err != nil {
		return err
	}
	secret.Wipe()
	return nil
}

// backoff is the time before another try, as the Go client's for secrets that are kept:
// random, up to a second and twice as much each time, at most a minute.
func backoff(tries int) time.Duration {
	return random.N(min(time.Second<<min(tries, 16), time.Minute))
}

// pause waits, and reports false if the context ended before.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// row says how the storm went, as a line of JSON and in words.
func (s *storm) row(took time.Duration, cpu figure, workloads int) row {
	leased, failed := s.calls.sums()
	x := newRow(overGRPC, "storm")
	x.Callers, x.Audit, x.Operations, x.Elapsed = s.services, "durable", leased, figure(took.Seconds())
	for _, n := range failed {
		x.Failed += n
	}
	var calls loop.Histogram
	if h := s.calls.done["lease"]; h != nil {
		calls = *h
	}
	x.OpsPerS = figure(float64(leased) / took.Seconds())
	x.P50, x.P99 = milliseconds(calls.Quantile(0.5)), milliseconds(calls.Quantile(0.99))
	x.CPU = cpu * million / figure(leased)
	examples := ""
	for _, reason := range slices.Sorted(maps.Keys(failed)) {
		examples += fmt.Sprintf("\n%d × %s, for example: %v", failed[reason], reason, s.calls.example[reason])
	}
	x.Note = fmt.Sprintf(`%d of %d services, %d workloads: leased in %.1f s (%s/s)
calls that were answered: p50 %s ms, p99 %s ms; a service waited: p50 %.2f s, p99 %.2f s, at most %.2f s
server CPU: %s s, %s µs for a lease; calls that failed: %d%s`,
		leased, s.services, workloads, took.Seconds(), x.OpsPerS.text(0), x.P50.text(1), x.P99.text(1),
		s.waits.Quantile(0.5).Seconds(), s.waits.Quantile(0.99).Seconds(), s.waits.Quantile(1).Seconds(),
		cpu.text(2), x.CPU.text(0), x.Failed, examples)
	return x
}

// verdict fails unless every service has its lease.
func (s *storm) verdict(failures []error) error {
	leased, _ := s.calls.sums()
	if leased == uint64(s.services) {
		return nil
	}
	return fmt.Errorf("%d services have no lease: %w", uint64(s.services)-leased, errors.Join(failures...))
}
