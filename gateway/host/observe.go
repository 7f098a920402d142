package host

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport/sallyport/gateway/transport"
)

// pingTimeout bounds one question to the store.
const pingTimeout = time.Second

// checks are the conditions of readiness.
func (h *Host) checks() []transport.Check {
	return append(h.leaseChecks(), []transport.Check{
		{Name: "audit", Err: h.log.Health},
		{Name: "store", Err: func() error {
			ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
			defer cancel()
			return h.store.Ping(ctx)
		}},
	}...)
}

func newCommits() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "sallyport_audit_commit_seconds", Help: "Time to make a batch of records durable.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 12),
	})
}

// registerMetrics exposes what the rooms below count. No label names a tenant, a
// keyring or a caller.
func (h *Host) registerMetrics(reg *prometheus.Registry) {
	counter := func(name, help string, value func() uint64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help},
			func() float64 { return float64(value()) }))
	}
	gauge := func(name, help string, value func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	counter("sallyport_kms_calls_total", "Calls to KEKs.", func() uint64 { return h.keys.Stats().KEKCalls })
	counter("sallyport_kms_failures_total", "Calls to KEKs that failed.", func() uint64 { return h.keys.Stats().KEKFailures })
	counter("sallyport_key_hits_total", "Keys served from memory.", func() uint64 { return h.keys.Stats().Hits })
	counter("sallyport_key_misses_total", "Keys that had to be opened.", func() uint64 { return h.keys.Stats().Misses })
	counter("sallyport_key_evictions_total", "Keyrings dropped from memory for want of room.", func() uint64 { return h.keys.Stats().Evictions })
	gauge("sallyport_key_entries", "Keyrings in memory.", func() float64 { return float64(h.keys.Stats().Entries) })
	counter("sallyport_store_queries_total", "Reads and writes of the store.", h.store.Queries)
	counter("sallyport_audit_records_total", "Records made durable.", func() uint64 { return h.log.Stats().Records })
	counter("sallyport_audit_batches_total", "Batches of records: one write and one sync each.", func() uint64 { return h.log.Stats().Batches })
	reg.MustRegister(h.commits, h.sourceSeconds, leaseCounts{h})
	gauge("sallyport_clock_skew_seconds", "How far the wall clock has jumped since the start.", func() float64 { return h.leases.Clock.Skew().Seconds() })
	gauge("sallyport_audit_seal_lag_seconds", "Age of the oldest closed segment that awaits sealing.", func() float64 { return h.log.Stats().Lag.Seconds() })
}
