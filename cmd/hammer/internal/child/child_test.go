package child

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestStartAndStop(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := Start(t.Context(), log, "sh", "-c", `echo before; echo ready; exec sleep 60`)
	if err != nil {
		t.Fatal(err)
	}
	if p.Ready() <= 0 || p.Err() != nil {
		t.Errorf("ready after %v, error %v", p.Ready(), p.Err())
	}
	if _, err := p.CPU(); err != nil {
		t.Error(err)
	}
	if m, err := p.Memory(); err != nil || m <= 0 {
		t.Errorf("memory %d, %v", m, err)
	}
	if err := p.Settle(t.Context()); err != nil {
		t.Error(err)
	}
	p.Stop()
	p.Stop()
	if p.Err() == nil {
		t.Error("it runs after Stop")
	}
	if b, err := os.ReadFile(log); err != nil || string(b) != "before\nready\n" {
		t.Errorf("log %q, %v", b, err)
	}
}

func TestStartFails(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	if _, err := Start(t.Context(), log, "sh", "-c", "echo reason >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error %v", err)
	}
	if b, _ := os.ReadFile(log); string(b) != "reason\n" {
		t.Errorf("log %q", b)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, log, "sleep", "60"); err == nil || !strings.Contains(err.Error(), "not ready") {
		t.Errorf("error %v", err)
	}
	if _, err := Start(t.Context(), log, filepath.Join(t.TempDir(), "nothing")); err == nil {
		t.Error("a program that is not there was started")
	}
}

func TestParseStat(t *testing.T) {
	stat := "4711 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 120 34 0 0 20 0 9 0 100 200 300\n"
	if d, err := parseStat([]byte(stat)); err != nil || d != 1540*time.Millisecond {
		t.Errorf("%v, %v", d, err)
	}
	for _, bad := range []string{"", "1 (x) S 1 2", "1 (x) S 1 2 3 4 5 6 7 8 9 10 x 34"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestParseMachine(t *testing.T) {
	stat := "cpu  100 20 30 4000 500 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n"
	if d, err := parseMachine([]byte(stat)); err != nil || d != 1710*time.Millisecond {
		t.Errorf("%v, %v", d, err)
	}
	for _, bad := range []string{"", "intr 1 2 3 4 5 6 7 8 9", "cpu  1 2 3 4", "cpu  1 x 3 4 5 6 7 8"} {
		if _, err := parseMachine([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if d, err := Machine(); err != nil || d <= 0 {
		t.Errorf("%v, %v", d, err)
	}
}
