package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/cmd/hammer/internal/child"
	"github.com/sallyport/sallyport/cmd/hammer/internal/loop"
	"github.com/sallyport/sallyport/cmd/hammer/internal/target"
)

// The systems that are compared.
const (
	floorGRPC = "floor"
	floorREST = "rest-floor"
	overGRPC  = "grpc"
	overREST  = "rest"
)

// system is a server asked in one way.
type system struct {
	name   string
	server *server
	client target.Client
	audit  string
}

// cell is a kind of work, measured for every system in turns.
type cell struct {
	work    target.Work
	callers int
	systems []*system
	// share is the part of a round's time that is enough for it.
	share    float64
	keyrings int // in the store, when it was filled
}

// sample is what one system did in one round, and what it cost.
type sample struct {
	result  *loop.Result
	cpu     time.Duration
	others  figure // the share of the machine that neither server nor load used
	mallocs figure
	kms     figure
	store   figure
}

// perOp divides by the operations that were done.
func (s sample) perOp(x float64) figure { return figure(x / float64(s.result.Ops)) }

func (s sample) cpuPerOp() figure { return s.perOp(float64(s.cpu.Nanoseconds()) / 1e3) }

const (
	warmUp  = 500 * time.Millisecond
	million = 1e6
)

// measure runs the cell: every system once in each round, so that whatever else the
// machine does meets them all. Every second round goes backwards, so that none of
// them always comes after the same other.
func (c cell) measure(ctx context.Context, rounds int, d time.Duration) ([]row, error) {
	calls := make([]loop.Call, len(c.systems))
	for i, s := range c.systems {
		var err error
		if calls[i], err = c.work.Call(ctx, s.client); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		loop.Run(ctx, c.callers, warmUp, calls[i])
	}
	samples := make([][]sample, len(c.systems))
	order := make([]int, len(c.systems))
	for i := range order {
		order[i] = i
	}
	for range rounds {
		for _, i := range order {
			s, err := c.systems[i].sample(ctx, c.callers, time.Duration(c.share*float64(d)), calls[i])
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", c.systems[i].name, c.work.Op, err)
			}
			samples[i] = append(samples[i], s)
		}
		slices.Reverse(order)
	}
	return c.rows(samples), nil
}

// sample measures one system for one round.
func (s *system) sample(ctx context.Context, callers int, d time.Duration, call loop.Call) (sample, error) {
	if err := s.server.Settle(ctx); err != nil {
		return sample{}, err
	}
	before, err := s.server.ReadMetrics(ctx)
	if err != nil {
		return sample{}, err
	}
	start, err := s.usage()
	if err != nil {
		return sample{}, err
	}
	r := loop.Run(ctx, callers, d, call)
	if err := s.server.Settle(ctx); err != nil {
		return sample{}, err
	}
	end, err := s.usage()
	if err != nil {
		return sample{}, err
	}
	after, err := s.server.ReadMetrics(ctx)
	if err != nil {
		return sample{}, err
	}
	if r.Ops == 0 {
		return sample{}, fmt.Errorf("no operation succeeded: %w", r.Err)
	}
	grown := func(name string) figure {
		if v, ok := after.Since(before, name); ok {
			return figure(v / float64(r.Ops))
		}
		return none
	}
	return sample{
		result: r, cpu: end.server - start.server, others: end.others(start),
		mallocs: grown(target.Mallocs), kms: million * grown(target.KMSCalls), store: million * grown(target.StoreQueries),
	}, nil
}

// usage is how much processor time was used until a moment, and by whom.
type usage struct {
	at                      time.Time
	machine, server, hammer time.Duration
}

func (s *system) usage() (usage, error) {
	u := usage{at: time.Now()}
	var own syscall.Rusage
	var errs [3]error
	u.machine, errs[0] = child.Machine()
	u.server, errs[1] = s.server.CPU()
	errs[2] = syscall.Getrusage(syscall.RUSAGE_SELF, &own)
	u.hammer = time.Duration(own.Utime.Nano() + own.Stime.Nano())
	return u, errors.Join(errs[:]...)
}

// others is the share of the machine's processors that somebody else used since an
// earlier moment.
func (u usage) others(since usage) figure {
	used := (u.machine - since.machine) - (u.server - since.server) - (u.hammer - since.hammer)
	return figure(max(used, 0)) / figure(u.at.Sub(since.at)) / figure(runtime.NumCPU())
}

// rows makes a row of each system's samples.
func (c cell) rows(samples [][]sample) []row {
	rows := make([]row, len(c.systems))
	for i, s := range c.systems {
		x := newRow(s.name, string(c.work.Op))
		x.Size, x.Items, x.Callers, x.Audit, x.Keyrings = c.work.Size, c.work.Items, c.callers, s.audit, c.keyrings
		x.Context = string(c.work.Context)
		total := &loop.Result{}
		for _, s := range samples[i] {
			total.Merge(s.result)
		}
		x.Operations, x.Failed, x.Rounds = total.Ops, total.Failed, len(samples[i])
		x.OpsPerS = median(samples[i], func(s sample) figure { return figure(s.result.Rate()) })
		x.P50, x.P99 = milliseconds(total.Latency.Quantile(0.5)), milliseconds(total.Latency.Quantile(0.99))
		x.CPU = median(samples[i], sample.cpuPerOp)
		x.Allocs = median(samples[i], func(s sample) figure { return s.mallocs })
		x.KMS = median(samples[i], func(s sample) figure { return s.kms })
		x.Store = median(samples[i], func(s sample) figure { return s.store })
		x.Others = median(samples[i], func(s sample) figure { return s.others })
		if c.work.Items > 0 {
			x.PerItem = x.CPU / figure(c.work.Items)
		}
		rows[i] = x
	}
	c.compare(rows, samples)
	return rows
}

// compare fills in the ratios: of each round with the same round of the floor, and
// then the median of those.
func (c cell) compare(rows []row, samples [][]sample) {
	at := func(name string) int {
		return slices.IndexFunc(c.systems, func(s *system) bool { return s.name == name })
	}
	ratio := func(i, floor int, of func(sample) figure) figure {
		if floor < 0 {
			return none
		}
		var ratios []figure
		for n := range samples[i] {
			ratios = append(ratios, of(samples[i][n])/of(samples[floor][n]))
		}
		return median(ratios, func(f figure) figure { return f })
	}
	for i, s := range c.systems {
		own := at(floorGRPC)
		if s.name == overREST || s.name == floorREST {
			own = at(floorREST)
		}
		x := &rows[i]
		x.Ratio = ratio(i, at(floorGRPC), sample.cpuPerOp)
		if own == at(floorREST) {
			x.RatioREST = ratio(i, own, sample.cpuPerOp)
		}
		x.RateRatio = ratio(i, own, func(s sample) figure { return figure(s.result.Rate()) })
		if own >= 0 {
			x.P99Ratio, x.Beyond = x.P99/rows[own].P99, x.Allocs-rows[own].Allocs
		}
	}
}

func milliseconds(d time.Duration) figure { return figure(float64(d.Nanoseconds()) / 1e6) }

// median of a figure over samples; the mean of the middle two for an even number.
func median[S any](samples []S, of func(S) figure) figure {
	if len(samples) == 0 {
		return none
	}
	values := make([]figure, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	slices.Sort(values)
	middle := len(values) / 2
	if len(values)%2 == 1 {
		return values[middle]
	}
	return (values[middle-1] + values[middle]) / 2
}
