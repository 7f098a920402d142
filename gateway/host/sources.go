package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport/sallyport/gateway/broker/localca"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/gateway/transport"
)

// openLeases opens the sources of secrets and makes the book.
func (h *Host) openLeases(ctx context.Context) error {
	sources := map[string]lease.Source{}
	for _, l := range h.config.Sources.LocalCA {
		s, err := localca.Open(ctx, localca.Config{
			File: l.File, KEKs: h.keks, Deployment: h.config.Deployment, Environment: h.config.Environment, Now: time.Now,
		})
		if err != nil {
			return fmt.Errorf("sources.local_ca %s: %w", l.Name, err)
		}
		sources[l.Name] = s
	}
	if err := h.openVaults(sources); err != nil {
		return err
	}
	c := h.config.Leases
	h.leases = lease.NewBook(lease.Config{
		Ledger: h.store, Roles: h.store, Sources: sources, Clock: lease.NewClock(time.Now), Logger: h.logger,
		Restored: h.store.Restored(), Observe: h.observeSource,
		Limits: lease.Limits{
			IssueTimeout: c.IssueTimeout, Margin: c.Margin, Concurrency: c.Concurrency, Waiting: c.Waiting,
			Patience: c.Patience, PerSecond: c.PerSecond, Burst: c.Burst, Keep: c.Keep,
		},
	})
	return nil
}

// leaseChecks are what people must know of leases.
func (h *Host) leaseChecks() []transport.Check {
	checks := []transport.Check{
		{Name: "leases", Advisory: true, Err: func() error {
			counts, err := h.countLeases()
			if n := counts[lease.StateStuck]; err == nil && n > 0 {
				err = fmt.Errorf("%d stuck: their end cannot be confirmed", n)
			}
			return err
		}},
		{Name: "clock", Advisory: true, Err: func() error {
			if skew := h.leases.Clock.Skew().Round(time.Millisecond); skew.Abs() > lease.MaxClockSkew {
				return fmt.Errorf("the wall clock has jumped by %v since the start", skew)
			}
			return nil
		}},
	}
	for name, source := range h.leases.Sources {
		checks = append(checks, transport.Check{Name: "source " + name, Advisory: true, Err: func() error {
			if err := source.Failure(); err != nil {
				return errors.New(fault.From(err).Reason.String())
			}
			return nil
		}})
	}
	return checks
}

func (h *Host) countLeases() (map[lease.State]int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
	defer cancel()
	return h.store.Count(ctx)
}

// leaseCounts exposes the rows of the ledger by state.
type leaseCounts struct{ host *Host }

var leasesDesc = prometheus.NewDesc("sallyport_leases", "Leases in the ledger by state.", []string{"state"}, nil)

// Describe implements prometheus.Collector.
func (leaseCounts) Describe(c chan<- *prometheus.Desc) { c <- leasesDesc }

// Collect implements prometheus.Collector.
func (l leaseCounts) Collect(c chan<- prometheus.Metric) {
	counts, err := l.host.countLeases()
	if err != nil {
		return // an invalid metric would take all others with it; readiness tells of the store
	}
	for s := lease.StateReserved; s.Valid(); s++ {
		c <- prometheus.MustNewConstMetric(leasesDesc, prometheus.GaugeValue, float64(counts[s]), s.String())
	}
}

func newSourceSeconds() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "sallyport_source_seconds", Help: "Time that sources of secrets took, by what was asked of them.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 12),
	}, []string{"source", "verb"})
}

func (h *Host) observeSource(source, verb string, took time.Duration) {
	h.sourceSeconds.WithLabelValues(source, verb).Observe(took.Seconds())
}
