package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/cmd/hammer/internal/target"
)

// build makes the programs that are measured, as make build does.
func build(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	c := exec.Command("go", "build", "-o", bin, ".", "../sallyport", "../sallyport-dev")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// hammer runs the command as a user does.
func hammer(t *testing.T, bin string, args ...string) (string, error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), filepath.Join(bin, "hammer"), args...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	if err != nil {
		t.Logf("hammer %v: %v\n%s", args, err, errs.String())
	}
	return out.String(), err
}

// TestHammer runs every command, for a moment.
func TestHammer(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds programs and runs them")
	}
	bin := build(t)

	t.Run("bench", func(t *testing.T) {
		dir := t.TempDir()
		lines := filepath.Join(dir, "bench.jsonl")
		out, err := hammer(t, bin, "bench", "--dir", dir, "--out", lines, "--quick", "--duration", "100ms", "--rounds", "1", "--callers", "4")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"floor", "grpc", "rest-floor", "rest", "Encrypt", "Decrypt", "ready from cold start"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is missing in\n%s", want, out)
			}
		}
		if data, err := os.ReadFile(lines); err != nil || bytes.Count(data, []byte("\n")) != 9 {
			t.Errorf("%v\n%s", err, data)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "hammer-*")); len(left) > 0 {
			t.Errorf("it left %v", left)
		}
	})

	t.Run("chaos", func(t *testing.T) {
		out, err := hammer(t, bin, "chaos", "--dir", t.TempDir(), "--rounds", "3", "--longest", "300ms", "--callers", "4")
		if err != nil || !strings.Contains(out, "none lost") {
			t.Errorf("%v\n%s", err, out)
		}
	})

	t.Run("load and seed", func(t *testing.T) {
		g, err := startGateway(t.Context(), bin, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer g.Stop()
		endpoints := filepath.Join(filepath.Dir(g.CA), target.FileName)
		out, err := hammer(t, bin, "load", "--endpoints", endpoints, "--duration", "500ms", "--callers", "4")
		if err != nil || strings.Contains(out, " × ") {
			t.Errorf("%v\n%s", err, out)
		}
		if out, err := hammer(t, bin, "seed", "--endpoints", endpoints, "--keyrings", "20"); err != nil || !strings.Contains(out, "20 keyrings") {
			t.Errorf("%v\n%s", err, out)
		}
	})

	t.Run("loss is noticed", func(t *testing.T) { lossIsNoticed(t, bin) })
}

// lossIsNoticed has the checks at the end of a chaos run look for what the
// gateway never acknowledged.
func lossIsNoticed(t *testing.T, bin string) {
	x := &chaos{bin: bin, dir: t.TempDir(), rounds: 1, callers: 2, longest: 500 * time.Millisecond}
	for x.ledger.size() == 0 { // the moment of the kill may come before the first call
		if err := x.round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.check(t.Context()); err != nil {
		t.Fatal(err)
	}

	receipts, sealed := x.ledger.receipts, x.ledger.sealed
	spoil := func(text string) string { // of the record's hash, far from the ends
		other := byte('A')
		if text[100] == other {
			other = 'B'
		}
		return text[:100] + string(other) + text[101:]
	}
	x.ledger.receipts = append([]string{spoil(receipts[0])}, receipts[1:]...)
	expectLoss(t, x, "not in the log")
	x.ledger.receipts = append([]string{""}, receipts...)
	expectLoss(t, x, "not a receipt")
	x.ledger.receipts = receipts
	x.ledger.sealed = append([]entry{{sealed[0].envelope, []byte("another")}}, sealed...)
	expectLoss(t, x, "do not open")
}

func expectLoss(t *testing.T, x *chaos, want string) {
	t.Helper()
	if err := x.check(context.WithoutCancel(t.Context())); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
}
