// Command testsum reads what `go test -json` writes and prints it as go test would:
// a line for each package, and everything about a test that failed. It ends with
// the skipped tests, the slowest packages and one line of totals, and fails if a
// test failed or none ran.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// event is a line of test2json; see `go doc test2json`.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
	Elapsed    float64
}

type tally struct {
	passed, failed, skipped int
	brokenPackages          []string
	skips                   []string
	slow                    []slow
	output                  map[string][]string // by package and test
	failedIn                map[string]int      // failed tests by package
}

type slow struct {
	pkg     string
	elapsed float64
}

func main() {
	t := &tally{output: map[string][]string{}, failedIn: map[string]int{}}
	if err := t.read(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(2)
	}
	if !t.close(os.Stdout) {
		os.Exit(1)
	}
}

func (t *tally) read(in io.Reader, out io.Writer) error {
	r := bufio.NewReader(in)
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(out, "%s", line) // not an event: whatever it is, show it
			} else {
				t.add(e, out)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *tally) add(e event, out io.Writer) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		fmt.Fprint(out, e.Output)
	case "output":
		if e.Test == "" && isPackageLine(e.Output) {
			fmt.Fprint(out, e.Output)
			return
		}
		t.output[key] = append(t.output[key], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			t.endPackage(e, out)
		} else {
			t.endTest(e, out)
		}
		delete(t.output, key)
	}
}

func (t *tally) endTest(e event, out io.Writer) {
	lines := t.output[e.Package+" "+e.Test]
	switch e.Action {
	case "pass":
		t.passed++
	case "skip":
		t.skipped++
		t.skips = append(t.skips, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(lines)))
	case "fail":
		t.failed++
		t.failedIn[e.Package]++
		fmt.Fprint(out, strings.Join(lines, ""))
	}
}

func (t *tally) endPackage(e event, out io.Writer) {
	t.slow = append(t.slow, slow{e.Package, e.Elapsed})
	if e.Action != "fail" {
		return
	}
	// Not by a test: it did not build, it panicked, or TestMain refused.
	if t.failedIn[e.Package] == 0 {
		t.brokenPackages = append(t.brokenPackages, e.Package)
		for key, lines := range t.output {
			if strings.HasPrefix(key, e.Package+" ") {
				fmt.Fprint(out, strings.Join(lines, ""))
			}
		}
	} else {
		fmt.Fprint(out, strings.Join(t.output[e.Package+" "], ""))
	}
}

// close prints the end and says whether all is well.
func (t *tally) close(out io.Writer) bool {
	fmt.Fprintln(out)
	slices.SortFunc(t.slow, func(a, b slow) int { return cmp.Compare(b.elapsed, a.elapsed) })
	for _, s := range t.slow[:min(5, len(t.slow))] {
		if s.elapsed >= 5 {
			fmt.Fprintf(out, "slow: %6.1fs %s\n", s.elapsed, s.pkg)
		}
	}
	for _, s := range t.skips {
		fmt.Fprintln(out, "skipped:", s)
	}
	for _, p := range t.brokenPackages {
		fmt.Fprintln(out, "broken:", p)
	}
	failed := t.failed + len(t.brokenPackages)
	fmt.Fprintf(out, "tests: %d passed, %d failed, %d skipped\n", t.passed, failed, t.skipped)
	return failed == 0 && t.passed > 0
}

// isPackageLine knows the lines that go test prints about a package, without the bare
// PASS and FAIL.
func isPackageLine(s string) bool {
	return strings.HasPrefix(s, "ok  \t") || strings.HasPrefix(s, "FAIL\t") || strings.HasPrefix(s, "?   \t")
}

// reason is what a skipped test said.
func reason(lines []string) string {
	for _, l := range slices.Backward(lines) {
		l = strings.TrimSpace(l)
		if l == "" || strings.HasPrefix(l, "--- SKIP") || strings.HasPrefix(l, "=== ") {
			continue
		}
		return l
	}
	return "no reason given"
}
