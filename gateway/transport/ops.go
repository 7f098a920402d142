package transport

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Check is one condition of readiness: nil when it holds.
type Check struct {
	Name string
	Err  func() error
	// Advisory is true for what people must know and callers can live with: it is a
	// detail, and does not make the gateway unready.
	Advisory bool
}

// readiness is the body of /readyz.
type readiness struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons,omitempty"`
	Details []string `json:"details,omitempty"`
}

// NewOps answers the questions of the machine that runs the gateway: /livez,
// /readyz with the reasons for not being ready, and /metrics. It shows nothing of
// tenants or callers, and asks for no credential: it listens on loopback.
func NewOps(metrics prometheus.Gatherer, checks []Check) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		r := readiness{Ready: true}
		for _, c := range checks {
			switch err := c.Err(); {
			case err == nil:
			case c.Advisory:
				r.Details = append(r.Details, c.Name+": "+err.Error())
			default:
				r.Ready = false
				r.Reasons = append(r.Reasons, c.Name+": "+err.Error())
			}
		}
		slices.Sort(r.Reasons)
		slices.Sort(r.Details)
		w.Header().Set("Content-Type", "application/json")
		if !r.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(r)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	return mux
}
