package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/cmd/hammer/internal/target"
)

// bench is a benchmark run.
type bench struct {
	hammer   string // this program, which is the floors too
	bin, dir string
	duration time.Duration // of a system's turn
	rounds   int
	callers  int
	out      string
	keyring  string
	keyrings int
	http2    bool
	keep     bool
	quick    bool

	// fill makes keyrings; a test has a faster way than the control plane.
	fill func(ctx context.Context, gateway *server, count int) error

	report  *report
	servers []*server
	closers []func() error
	gateway *server
	systems map[string]*system
}

func newBench() *cobra.Command {
	b := &bench{hammer: itself()}
	b.fill = func(ctx context.Context, gateway *server, count int) error {
		return seed(ctx, gateway.Endpoints, count, b.callers)
	}
	c := &cobra.Command{
		Use: "bench", Short: "Measure Sallyport beside its floors", Args: cobra.NoArgs,
		Long: `Measure Sallyport beside its floors.

The floors and a development gateway run as processes of their own, on loopback, and
are asked in turns. What is compared is server processor time per operation: absolute
rates say little on a machine that others use too. docs/performance.md says more.

It asserts nothing; the exit status tells only whether it could measure.`,
		RunE: func(c *cobra.Command, _ []string) error { return b.run(c.Context()) },
	}
	f := c.Flags()
	f.StringVar(&b.bin, "bin", beside(), "folder of sallyport-dev and sallyport")
	f.StringVar(&b.dir, "dir", "build", "where to make the run's directory; the audit log is on that disk")
	f.DurationVar(&b.duration, "duration", 3*time.Second, "time that a system is loaded for in a round")
	f.IntVar(&b.rounds, "rounds", 3, "rounds")
	f.IntVar(&b.callers, "callers", 32, "callers at once")
	f.StringVar(&b.out, "out", filepath.Join("build", "bench.jsonl"), "file to append a line of JSON for each measurement to; empty for none")
	f.StringVar(&b.keyring, "keyring", demoKeyring, "keyring to work with")
	f.IntVar(&b.keyrings, "keyrings", 0, "also measure with so many more keyrings in the store")
	f.BoolVar(&b.http2, "rest-http2", false, "REST callers share an HTTP/2 connection; else each has one of HTTP/1.1")
	f.BoolVar(&b.keep, "keep", false, "keep the run's directory")
	f.BoolVar(&b.quick, "quick", false, "only Encrypt and Decrypt by all callers")
	return c
}

// What every development gateway has.
const (
	demoTenant  = "tenants/demo"
	demoKeyring = demoTenant + "/keyrings/default"
)

func (b *bench) run(ctx context.Context) (err error) {
	if b.rounds < 1 || b.callers < 1 || b.duration < 10*time.Millisecond {
		return errors.New("rounds and callers are at least 1, and the duration 10ms")
	}
	if b.report, err = newReport(b.out); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.report.close()) }()
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(b.dir, "hammer-"); err != nil {
		return err
	}
	if !b.keep {
		defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	}
	defer b.stop()
	if err := b.measure(ctx); err != nil {
		return err
	}
	fmt.Println(b.conditions())
	return b.report.render(os.Stdout)
}

func (b *bench) measure(ctx context.Context) error {
	if err := b.coldStarts(ctx); err != nil {
		return err
	}
	if !b.quick {
		if err := b.stampede(ctx); err != nil {
			return err
		}
	}
	if err := b.connect(ctx); err != nil {
		return err
	}
	for _, c := range b.cells() {
		say("%s, %d callers", c.work.Op, c.callers)
		rows, err := c.measure(ctx, b.rounds, b.duration)
		if err != nil {
			return err
		}
		if err := b.report.add(rows...); err != nil {
			return err
		}
	}
	if b.keyrings > 0 {
		if err := b.manyKeyrings(ctx); err != nil {
			return err
		}
	}
	if b.quick {
		return nil
	}
	b.stop() // the log is complete when its gateway has ended
	if err := b.verification(ctx); err != nil {
		return err
	}
	return b.decision(ctx)
}

// connect starts the floors and makes a client for every system.
func (b *bench) connect(ctx context.Context) error {
	grpc, err := startFloor(ctx, b.hammer, "floor-grpc", b.dir)
	if err != nil {
		return err
	}
	b.servers = append(b.servers, grpc)
	rest, err := startFloor(ctx, b.hammer, "floor-rest", b.dir)
	if err != nil {
		return err
	}
	b.servers = append(b.servers, rest)
	b.systems = map[string]*system{
		floorGRPC: {server: grpc, audit: "none"}, floorREST: {server: rest, audit: "none"},
		overGRPC: {server: b.gateway, audit: "durable"}, overREST: {server: b.gateway, audit: "durable"},
	}
	for name, s := range b.systems {
		s.name = name
		if name == floorGRPC || name == overGRPC {
			s.client, err = target.NewGRPC(ctx, s.server.Endpoints, b.keyring)
		} else {
			s.client, err = target.NewREST(s.server.Endpoints, b.keyring, b.callers, b.http2)
		}
		if err != nil {
			return err
		}
		b.closers = append(b.closers, s.client.Close)
	}
	return nil
}

// cells are what is measured, with payloads as in docs/performance.md.
func (b *bench) cells() []cell {
	pick := func(names ...string) []*system {
		var list []*system
		for _, n := range names {
			list = append(list, b.systems[n])
		}
		return list
	}
	all := pick(floorGRPC, overGRPC, floorREST, overREST)
	const payload = 1024
	single := func(op target.Op, context target.Context) target.Work {
		return target.Work{Op: op, Size: payload, Context: context}
	}
	cells := []cell{
		{work: single(target.Encrypt, target.ConstantContext), callers: b.callers, systems: all, share: 1},
		{work: single(target.Decrypt, target.ConstantContext), callers: b.callers, systems: all, share: 1},
	}
	if b.quick {
		return cells
	}
	batch := func(op target.Op, context target.Context) target.Work {
		return target.Work{Op: op, Size: 100, Items: 1000, Context: context}
	}
	const batchCallers = 4
	return append(cells,
		cell{work: single(target.Encrypt, target.FreshContext), callers: b.callers, systems: pick(floorGRPC, overGRPC), share: 0.5},
		cell{work: single(target.Encrypt, target.ConstantContext), callers: 1, systems: all, share: 0.4},
		cell{work: single(target.Decrypt, target.ConstantContext), callers: 1, systems: all, share: 0.4},
		cell{work: batch(target.BatchEncrypt, target.NoContext), callers: batchCallers, systems: pick(floorGRPC, overGRPC), share: 0.4},
		cell{work: batch(target.BatchEncrypt, target.ConstantContext), callers: batchCallers, systems: all, share: 0.4},
		cell{work: batch(target.BatchDecrypt, target.ConstantContext), callers: batchCallers, systems: all, share: 0.4},
	)
}

// stop ends every server that was started.
func (b *bench) stop() {
	for _, closeClient := range b.closers {
		_ = closeClient() // of a run that is over
	}
	for _, s := range b.servers {
		s.Stop()
	}
	b.closers, b.servers = nil, nil
}

// conditions says what the figures hold for.
func (b *bench) conditions() string {
	protocol := "HTTP/1.1, a connection each"
	if b.http2 {
		protocol = "HTTP/2, one connection"
	}
	return fmt.Sprintf(`%s/%s, %d processors shared with the load, %s; audit log on %s.
TLS 1.3 with client certificates; gRPC callers share a connection, REST: %s.
%d rounds of %v, in turns; medians of rounds. CPU is user and system time of the server.
Allocations are of the whole server process. × floor: server CPU to that of the gRPC floor.
ops/floor, p99/floor, beyond floor: compared with the floor of the same transport.
others: the share of the processors that neither the server nor the load used; beyond a
tenth, rates and latencies mean little, and CPU times are too high.
`, runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), fileSystem(b.dir), protocol, b.rounds, b.duration)
}

// say tells the person at the terminal what is going on.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+" ...\n", args...) }
