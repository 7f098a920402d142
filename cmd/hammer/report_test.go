package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/cmd/hammer/internal/loop"
	"github.com/sallyport/sallyport/cmd/hammer/internal/target"
)

// round makes a sample of ops operations in a second.
func round(ops uint64, cpu time.Duration, mallocs float64) sample {
	r := &loop.Result{Ops: ops, Elapsed: time.Second}
	for range ops {
		r.Latency.Add(time.Duration(1e9 / ops))
	}
	return sample{result: r, cpu: cpu, mallocs: figure(mallocs)}
}

// TestRows compares two systems by hand-made rounds: a ratio is of the same round,
// and of the rounds the median.
func TestRows(t *testing.T) {
	c := cell{
		work: target.Work{Op: target.Encrypt, Size: 1024, Context: target.ConstantContext}, callers: 32,
		systems: []*system{{name: floorGRPC, audit: "none"}, {name: overGRPC, audit: "durable"}},
	}
	rows := c.rows([][]sample{
		{round(1000, 100*time.Millisecond, 60), round(500, 100*time.Millisecond, 60), round(1000, 100*time.Millisecond, 60)},
		{round(800, 120*time.Millisecond, 90), round(400, 160*time.Millisecond, 90), round(800, 400*time.Millisecond, 90)},
	})
	floor, grpc := rows[0], rows[1]
	for what, pair := range map[string][2]figure{
		"floor CPU": {floor.CPU, 100}, "floor ratio": {floor.Ratio, 1}, "CPU": {grpc.CPU, 400},
		"ratio": {grpc.Ratio, 2}, "throughput": {grpc.RateRatio, 0.8}, "allocations": {grpc.Beyond, 30}, "rate": {grpc.OpsPerS, 800},
	} {
		if math.Abs(float64(pair[0]-pair[1])) > 1e-9 {
			t.Errorf("%s is %v, want %v", what, pair[0], pair[1])
		}
	}
	if !math.IsNaN(float64(grpc.RatioREST)) {
		t.Errorf("a ratio to a floor that was not measured: %v", grpc.RatioREST)
	}
	if grpc.Operations != 2000 || grpc.Rounds != 3 || grpc.Audit != "durable" {
		t.Errorf("%+v", grpc)
	}
}

func TestReport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "bench.jsonl")
	r, err := newReport(path)
	if err != nil {
		t.Fatal(err)
	}
	x := newRow(overGRPC, "BatchEncrypt")
	x.Items, x.PerItem, x.CPU = 1000, 2.5, 2500
	if err := r.add(x); err != nil {
		t.Fatal(err)
	}
	if err := r.fact(newRow("audit", "verify"), "%d records/s", 250_000); err != nil {
		t.Fatal(err)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := r.render(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"BatchEncrypt × 1000", "2.50 µs of server CPU", "250000 records/s"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	if len(lines) != 2 {
		t.Fatalf("%d lines", len(lines))
	}
	for _, line := range lines {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{
			"system", "op", "size", "callers", "ops_per_s", "p50_ms", "p99_ms", "server_cpu_us_per_op", "ratio_to_floor",
		} {
			if _, ok := fields[name]; !ok {
				t.Errorf("%s has no %s", line, name)
			}
		}
	}
}

func TestMedian(t *testing.T) {
	of := func(f figure) figure { return f }
	for want, values := range map[figure][]figure{2: {3, 1, 2}, 2.5: {4, 1, 2, 3}, 7: {7}} {
		if got := median(values, of); got != want {
			t.Errorf("the median of %v is %v", values, got)
		}
	}
	if !math.IsNaN(float64(median(nil, of))) {
		t.Error("nothing has a median")
	}
}
