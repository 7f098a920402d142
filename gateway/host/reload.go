package host

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/config"
)

// ReloadInterval is how often certificates and trust bundles are read again: the
// longest time until a change of the files is in force, on open connections too.
const ReloadInterval = 2 * time.Second

// watched is a set of files that are turned into one value.
type watched struct {
	name     string
	paths    []string
	contents [][]byte
	use      func(contents [][]byte) error
}

// load reads the files and uses them if they changed.
func (w *watched) load() error {
	contents := make([][]byte, len(w.paths))
	changed := w.contents == nil
	for i, path := range w.paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		contents[i] = data
		changed = changed || !bytes.Equal(data, w.contents[i])
	}
	if !changed {
		return nil
	}
	if err := w.use(contents); err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}
	w.contents = contents
	return nil
}

// watch loads the files again until the context ends. What does not load leaves
// what was loaded before in force, and is logged once for each new mistake.
func watch(ctx context.Context, log *slog.Logger, files ...*watched) {
	tick := time.NewTicker(ReloadInterval)
	defer tick.Stop()
	said := map[string]string{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, w := range files {
			before, problem := w.contents, ""
			if err := w.load(); err != nil {
				problem = err.Error()
				if said[w.name] != problem {
					log.Error("not reloaded; what was loaded before stays in force", "files", w.name, "error", err)
				}
			} else if len(before) > 0 && &before[0] != &w.contents[0] {
				log.Info("reloaded", "files", w.name)
			}
			said[w.name] = problem
		}
	}
}

// watchCertificate keeps the server's certificate.
func watchCertificate(c config.TLS, current *atomic.Pointer[tls.Certificate]) *watched {
	return &watched{name: "server certificate", paths: []string{c.Certificate, c.Key}, use: func(data [][]byte) error {
		pair, err := tls.X509KeyPair(data[0], data[1])
		if err != nil {
			return err
		}
		current.Store(&pair)
		return nil
	}}
}

// watchTrust keeps the authorities that vouch for callers.
func watchTrust(c config.Trust, use func(*authn.Trust)) *watched {
	w := &watched{name: "trust bundles"}
	for _, d := range c.Domains {
		w.paths = append(w.paths, d.Bundle)
	}
	if c.Operators != "" {
		w.paths = append(w.paths, c.Operators)
	}
	w.use = func(data [][]byte) error {
		domains := map[string][]byte{}
		for i, d := range c.Domains {
			domains[d.Name] = data[i]
		}
		var operators []byte
		if c.Operators != "" {
			operators = data[len(data)-1]
		}
		t, err := authn.NewTrust(domains, operators)
		if err != nil {
			return err
		}
		use(t)
		return nil
	}
	return w
}
