package host

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A changed file is in force after one interval. What cannot be used, or read,
// leaves in force what was, and is logged once for each new mistake.
func TestWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	synctest.Test(t, func(t *testing.T) {
		var inForce atomic.Pointer[string]
		var log output
		w := &watched{name: "the file", paths: []string{path}, use: func(contents [][]byte) error {
			if strings.HasPrefix(string(contents[0]), "bad") {
				return errors.New("it is " + string(contents[0]))
			}
			content := string(contents[0])
			inForce.Store(&content)
			return nil
		}}
		write(t, path, "first")
		if err := w.load(); err != nil || *inForce.Load() != "first" {
			t.Fatal(*inForce.Load(), err)
		}
		go watch(t.Context(), slog.New(slog.NewTextHandler(&log, nil)), w)
		time.Sleep(ReloadInterval / 2) // so that the steps fall between the readings
		for _, step := range []struct {
			content string // nothing for no file
			want    string // in force afterwards
			logged  string
		}{
			{"first", "first", ""},
			{"second", "second", "reloaded"},
			{"second", "second", ""},
			{"bad", "second", "it is bad"},
			{"bad", "second", ""},
			{"bad again", "second", "it is bad again"},
			{"", "second", "no such file"},
			{"", "second", ""},
			{"second", "second", ""},
			{"bad", "second", "it is bad"},
			{"third", "third", "reloaded"},
		} {
			log.take()
			if step.content == "" {
				_ = os.Remove(path)
			} else {
				write(t, path, step.content)
			}
			time.Sleep(ReloadInterval)
			synctest.Wait()
			if got := *inForce.Load(); got != step.want {
				t.Errorf("%q: %q is in force", step.content, got)
			}
			if got := log.take(); !strings.Contains(got, step.logged) || (step.logged == "") != (got == "") {
				t.Errorf("%q: logged %q, want %q", step.content, got, step.logged)
			}
		}
	})
}

// output is a log that a test reads.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

// take gives what was written since it was asked before.
func (o *output) take() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.buf.Reset()
	return o.buf.String()
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
