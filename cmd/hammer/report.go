package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sallyport/sallyport/cmd/hammer/internal/target"
)

// figure is a number that may not apply, or not have been measured: NaN, which is
// null in JSON and a dash in the table.
type figure float64

var none = figure(math.NaN())

// MarshalJSON implements json.Marshaler.
func (f figure) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, float64(f), 'g', 6, 64), nil
}

// text gives the number with so many decimals.
func (f figure) text(decimals int) string {
	if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
		return "-"
	}
	return strconv.FormatFloat(float64(f), 'f', decimals, 64)
}

// row is a measurement: a line of JSON, and of the table.
type row struct {
	System  string `json:"system"`
	Op      string `json:"op"`
	Size    int    `json:"size"` // bytes of plaintext, of each item
	Callers int    `json:"callers"`
	OpsPerS figure `json:"ops_per_s"`
	P50     figure `json:"p50_ms"`
	P99     figure `json:"p99_ms"`
	CPU     figure `json:"server_cpu_us_per_op"`
	Ratio   figure `json:"ratio_to_floor"` // of server CPU per operation, to the gRPC floor

	RatioREST  figure `json:"ratio_to_rest_floor"`       // the same, to the REST floor
	RateRatio  figure `json:"ops_ratio_to_own_floor"`    // of throughput, to the floor of its transport
	P99Ratio   figure `json:"p99_ratio_to_own_floor"`    // of p99, to the floor of its transport
	Allocs     figure `json:"allocs_per_op"`             // heap objects of the server
	Beyond     figure `json:"allocs_beyond_floor"`       // those that the floor of its transport does not have
	PerItem    figure `json:"server_cpu_us_per_item"`    // of a batch
	KMS        figure `json:"kms_calls_per_million_ops"` // from the server's metrics
	Store      figure `json:"store_queries_per_million"` // from the server's metrics
	Others     figure `json:"others_share"`              // of the machine's processors, used by others meanwhile
	Elapsed    figure `json:"elapsed_s"`                 // until the last had what it asked for, where each asks for one thing
	Items      int    `json:"items,omitempty"`           // in a batch
	Context    string `json:"context,omitempty"`         // "constant", or "fresh" for another in each call, or "none"
	Audit      string `json:"audit"`                     // "durable", or "none"
	Keyrings   int    `json:"keyrings,omitempty"`        // in the store, when it was filled
	Operations uint64 `json:"operations,omitempty"`      // that were measured
	Failed     uint64 `json:"failed,omitempty"`          // operations that were not answered
	Rounds     int    `json:"rounds,omitempty"`
	Note       string `json:"note,omitempty"`
	MeasuredAt string `json:"time"`
}

// newRow makes a row without figures.
func newRow(system, op string) row {
	return row{
		System: system, Op: op, OpsPerS: none, P50: none, P99: none, CPU: none, Ratio: none, RatioREST: none,
		RateRatio: none, P99Ratio: none, Allocs: none, Beyond: none, PerItem: none, KMS: none, Store: none, Others: none, Elapsed: none,
		Audit: "none", MeasuredAt: time.Now().UTC().Format(time.RFC3339),
	}
}

// report gathers rows: into a table that is printed at the end, and into a file as
// they come.
type report struct {
	rows  []row
	notes []string
	lines io.WriteCloser
}

// newReport appends to the file of JSON lines at path, if there is to be one.
func newReport(path string) (*report, error) {
	if path == "" {
		return &report{}, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &report{lines: f}, nil
}

func (r *report) close() error {
	if r.lines == nil {
		return nil
	}
	return r.lines.Close()
}

// add takes rows for the table.
func (r *report) add(rows ...row) error {
	r.rows = append(r.rows, rows...)
	return r.write(rows...)
}

// fact takes a row that the table has no column for, and the sentence that says it.
func (r *report) fact(x row, format string, args ...any) error {
	x.Note = fmt.Sprintf(format, args...)
	r.notes = append(r.notes, x.Note)
	return r.write(x)
}

func (r *report) write(rows ...row) error {
	if r.lines == nil {
		return nil
	}
	for _, x := range rows {
		data, err := json.Marshal(x)
		if err != nil {
			return err
		}
		if _, err := r.lines.Write(append(data, '\n')); err != nil {
			return err
		}
	}
	return nil
}

const columns = "system\top\tbytes\tcallers\tops/s\tp50 ms\tp99 ms\tCPU µs/op\t× floor\t× REST floor\tops/floor\tp99/floor\tallocs\tbeyond floor\tKMS/M\tstore/M\tothers\t"

// render writes the table and the facts.
func (r *report) render(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, columns)
	last := ""
	for _, x := range r.rows {
		if group := fmt.Sprint(x.title(), x.Callers, x.Keyrings); group != last {
			if last != "" {
				fmt.Fprintln(t, strings.Repeat("\t", strings.Count(columns, "\t")))
			}
			last = group
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", x.System, x.title(), x.Size, x.Callers,
			x.OpsPerS.text(0), x.P50.text(2), x.P99.text(2), x.CPU.text(1), x.Ratio.text(2), x.RatioREST.text(2),
			x.RateRatio.percent(), x.P99Ratio.text(2), x.Allocs.text(0), x.Beyond.text(0), x.KMS.text(1), x.Store.text(1), x.Others.percent())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, x := range r.rows {
		if x.Items > 0 {
			fmt.Fprintf(w, "%s %s: %s µs of server CPU for each of %d items\n", x.System, x.title(), x.PerItem.text(2), x.Items)
		}
	}
	for _, n := range r.notes {
		fmt.Fprintln(w, n)
	}
	return nil
}

func (f figure) percent() string {
	if s := (f * 100).text(0); s != "-" {
		return s + " %"
	}
	return "-"
}

// title names the operation and what is special about it.
func (x row) title() string {
	title := x.Op
	if x.Items > 0 {
		title += fmt.Sprintf(" × %d", x.Items)
	}
	if x.Context != "" && x.Context != string(target.ConstantContext) {
		title += ", context " + x.Context
	}
	if x.Keyrings > 0 {
		title += fmt.Sprintf(", %d keyrings", x.Keyrings)
	}
	return title
}
