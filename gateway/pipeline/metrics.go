package pipeline

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport/sallyport/gateway/fault"
)

// Metrics counts calls by method and reason. Its labels are bounded by the proto:
// no tenant, keyring or caller is among them.
type Metrics struct {
	calls    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	// ok and seconds are the children of the common case, looked up once.
	ok      map[string]prometheus.Counter
	seconds map[string]prometheus.Observer
}

// NewMetrics registers the metrics of the given routes.
func NewMetrics(reg prometheus.Registerer, routes []Route) *Metrics {
	m := &Metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_calls_total", Help: "Calls by method and reason; OK for success.",
		}, []string{"method", "reason"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sallyport_call_seconds", Help: "Time from the decoded request to the reply.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 12),
		}, []string{"method"}),
		ok:      map[string]prometheus.Counter{},
		seconds: map[string]prometheus.Observer{},
	}
	reg.MustRegister(m.calls, m.duration)
	for _, r := range routes {
		method := string(r.Method)
		m.ok[method] = m.calls.WithLabelValues(method, "OK")
		m.seconds[method] = m.duration.WithLabelValues(method)
	}
	return m
}

func (m *Metrics) observe(r *Route, f *fault.Error, d time.Duration) {
	method := string(r.Method)
	m.seconds[method].Observe(d.Seconds())
	if f == nil {
		m.ok[method].Inc()
		return
	}
	m.calls.WithLabelValues(method, f.Reason.String()).Inc()
}
