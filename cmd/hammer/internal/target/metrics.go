package target

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Metrics are the samples of a server at one moment, added up over their labels.
type Metrics map[string]float64

// The samples that are read.
const (
	KMSCalls     = "sallyport_kms_calls_total"
	StoreQueries = "sallyport_store_queries_total"
	Mallocs      = "go_memstats_mallocs_total"
	CPUSeconds   = "process_cpu_seconds_total"
)

// metricsLimit is far above what a server has to say.
const metricsLimit = 8 << 20

// ReadMetrics asks the server's operations listener.
func (e Endpoints) ReadMetrics(ctx context.Context) (Metrics, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, withScheme("http", e.Ops)+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	reply, err := new(http.Client).Do(r)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", r.URL, reply.Status)
	}
	return parseMetrics(io.LimitReader(reply.Body, metricsLimit))
}

// parseMetrics reads the text format: "name{labels} value [timestamp]". A label's
// value may hold any character, so the value is what follows the last brace.
func parseMetrics(r io.Reader) (Metrics, error) {
	m := Metrics{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		end := strings.IndexAny(line, "{ ")
		if end < 0 {
			return nil, fmt.Errorf("a metric without a value: %q", line)
		}
		fields := strings.Fields(line[max(end, strings.LastIndexByte(line, '}')+1):])
		if len(fields) == 0 {
			return nil, fmt.Errorf("a metric without a value: %q", line)
		}
		value, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return nil, fmt.Errorf("a metric without a value: %q", line)
		}
		m[line[:end]] += value
	}
	return m, lines.Err()
}

// Since gives how much a sample has grown since an earlier moment, and whether the
// server has it.
func (m Metrics) Since(earlier Metrics, name string) (float64, bool) {
	value, ok := m[name]
	return value - earlier[name], ok
}

// withScheme makes a base URL of an address that may be one already.
func withScheme(scheme, address string) string {
	if strings.Contains(address, "://") {
		return strings.TrimSuffix(address, "/")
	}
	return scheme + "://" + address
}
