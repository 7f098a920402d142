package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/cmd/hammer/internal/loop"
	"github.com/sallyport/sallyport/cmd/hammer/internal/target"
)

// load is a soak run: every operation of the data plane, mixed, and every answer
// checked.
type load struct {
	endpoints string
	tenant    string
	duration  time.Duration
	callers   int
	size      int
	every     time.Duration

	tally tally
}

func newLoad() *cobra.Command {
	l := &load{}
	c := &cobra.Command{
		Use: "load", Short: "Load a gateway with mixed calls and check every answer", Args: cobra.NoArgs,
		Long: `Load a gateway with mixed calls, over gRPC and REST, and check every answer.

What was encrypted is decrypted again and compared, what was altered must be refused.
Failures are counted by reason. The exit status is 1 if an answer was wrong; a call
that was refused or not answered is only counted.

The operator of the endpoints file makes the keyrings hammer-aead, hammer-mac and
hammer-deterministic in the tenant if they are not there.`,
		RunE: func(c *cobra.Command, _ []string) error { return l.run(c.Context()) },
	}
	f := c.Flags()
	f.StringVar(&l.endpoints, "endpoints", "", "the gateway's endpoints.json (required)")
	f.StringVar(&l.tenant, "tenant", demoTenant, "tenant whose keyrings are used")
	f.DurationVar(&l.duration, "duration", time.Minute, "how long")
	f.IntVar(&l.callers, "callers", 16, "callers at once")
	f.IntVar(&l.size, "size", 4096, "largest plaintext in bytes")
	f.DurationVar(&l.every, "every", 10*time.Second, "how often to print how it goes")
	_ = c.MarkFlagRequired("endpoints") // it fails for flags that are not there
	return c
}

func (l *load) run(ctx context.Context) error {
	e, err := target.ReadEndpoints(l.endpoints)
	if err != nil {
		return err
	}
	w, err := newWorker(ctx, e, l.tenant, l.callers, l.size)
	if err != nil {
		return err
	}
	defer w.close()
	l.tally.start = time.Now()
	before := l.server(ctx, e)
	stopped := make(chan struct{})
	ticking, stop := context.WithCancel(ctx)
	go func() {
		defer close(stopped)
		l.tally.printEvery(ticking, l.every)
	}()
	loop.Run(ctx, l.callers, l.duration, func(ctx context.Context, _ int) error {
		d := w.pick()
		start := time.Now()
		err := d.do(w, ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		l.tally.count(d.name, time.Since(start), err)
		if err != nil {
			time.Sleep(failurePause)
		}
		return err
	})
	stop()
	<-stopped
	fmt.Printf("server before: %s\nserver after:  %s\n", before, l.server(context.WithoutCancel(ctx), e))
	if err := l.tally.render(os.Stdout); err != nil {
		return err
	}
	return l.tally.verdict()
}

// failurePause is how long a caller waits after a failure, so that a gateway that is
// away is not asked a hundred thousand times a second whether it is back.
const failurePause = 20 * time.Millisecond

// server tells what a soak looks for in the server: what grows.
func (l *load) server(ctx context.Context, e target.Endpoints) string {
	if e.Ops == "" {
		return "not known: the endpoints name no operations listener"
	}
	m, err := e.ReadMetrics(ctx)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%.0f MiB resident, %.0f MiB of heap, %.0f goroutines, %.0f open files",
		m["process_resident_memory_bytes"]/(1<<20), m["go_memstats_heap_alloc_bytes"]/(1<<20),
		m["go_goroutines"], m["process_open_fds"])
}

// errWrong is an answer that is not right: the only thing that makes a run fail.
var errWrong = errors.New("WRONG ANSWER")

// tally counts what became of the calls.
type tally struct {
	start   time.Time
	mu      sync.Mutex
	done    map[string]*loop.Histogram
	failed  map[string]map[string]uint64 // by what was done, and why
	example map[string]error             // one failure for each reason
}

func (t *tally) count(what string, d time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done == nil {
		t.done, t.failed, t.example = map[string]*loop.Histogram{}, map[string]map[string]uint64{}, map[string]error{}
	}
	if t.done[what] == nil {
		t.done[what], t.failed[what] = &loop.Histogram{}, map[string]uint64{}
	}
	if err == nil {
		t.done[what].Add(d)
		return
	}
	reason := reasonOf(err)
	t.failed[what][reason]++
	if t.example[reason] == nil {
		t.example[reason] = err
	}
}

// reasonOf names why a call failed.
func reasonOf(err error) string {
	var e *sallyport.Error
	var r *target.Refusal
	switch {
	case errors.Is(err, errWrong):
		return errWrong.Error()
	case errors.As(err, &e):
		return string(e.Reason)
	case errors.As(err, &r):
		return r.Reason
	}
	return "UNAVAILABLE" // of the HTTP client: no gateway answered
}

// sums gives how many exchanges succeeded, and how many failed for which reason.
func (t *tally) sums() (uint64, map[string]uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var done uint64
	failed := map[string]uint64{}
	for what, h := range t.done {
		done += h.Count()
		for reason, n := range t.failed[what] {
			failed[reason] += n
		}
	}
	return done, failed
}

func (t *tally) printEvery(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	ticks := time.NewTicker(d)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			done, failed := t.sums()
			fmt.Fprintf(os.Stderr, "%6.0f s  %d exchanges, failed: %v\n", time.Since(t.start).Seconds(), done, failed)
		}
	}
}

func (t *tally) render(w io.Writer) error {
	_, failed := t.sums()
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "exchange\tdone\tp50\tp99\tfailed")
	for _, what := range slices.Sorted(maps.Keys(t.done)) {
		h := t.done[what]
		fmt.Fprintf(table, "%s\t%d\t%s ms\t%s ms\t%v\n", what, h.Count(),
			milliseconds(h.Quantile(0.5)).text(2), milliseconds(h.Quantile(0.99)).text(2), t.failed[what])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, reason := range slices.Sorted(maps.Keys(failed)) {
		fmt.Fprintf(w, "%d × %s, for example: %v\n", failed[reason], reason, t.example[reason])
	}
	return nil
}

// verdict fails if an answer was wrong, or none was right.
func (t *tally) verdict() error {
	done, failed := t.sums()
	if n := failed[errWrong.Error()]; n > 0 {
		return fmt.Errorf("%d wrong answers", n)
	}
	if done == 0 {
		return errors.New("no call was answered")
	}
	return nil
}
