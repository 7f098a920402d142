package host

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A changed file is in force after one interval. What cannot be used, or read,
// leaves in force what was, and is logged once for each new mistake.
func TestWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	synctest.Test(t, func(t *testing.T) {
		var inForce string
		var log bytes.Buffer
		w := &watched{name: "the file", paths: []string{path}, use: func(contents [][]byte) error {
			if strings.HasPrefix(string(contents[0]), "bad") {
				return errors.New("it is " + string(contents[0]))
			}
			inForce = string(contents[0])
			return nil
		}}
		write(t, path, "first")
		if err := w.load(); err != nil || inForce != "first" {
			t.Fatal(inForce, err)
		}
		go watch(t.Context(), slog.New(slog.NewTextHandler(&log, nil)), w)
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
			log.Reset()
			if step.content == "" {
				_ = os.Remove(path)
			} else {
				write(t, path, step.content)
			}
			time.Sleep(ReloadInterval)
			synctest.Wait()
			if inForce != step.want {
				t.Errorf("%q: %q is in force", step.content, inForce)
			}
			if got := log.String(); !strings.Contains(got, step.logged) || (step.logged == "") != (got == "") {
				t.Errorf("%q: logged %q, want %q", step.content, got, step.logged)
			}
		}
	})
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
