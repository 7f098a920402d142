//go:build measure

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/gateway/development"
	"github.com/sallyport/sallyport/gateway/host"
)

// vaultGateway is the first argument of a process of this test binary that is a
// development gateway with a Vault, which is the JSON of the second.
const vaultGateway = "vault-gateway"

func serveVault(source, dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var vault config.Vault
	if err := json.Unmarshal([]byte(source), &vault); err != nil {
		return err
	}
	host.TuneMemory() // as the released program does
	g, err := development.Start(ctx, development.Config{
		Dir: dir, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Change: func(c *config.Config) {
			c.Sources.Vault = append(c.Sources.Vault, vault)
			c.Leases.PerSecond, c.Leases.Burst = 1000, 1000 // one workload stands for many
		},
	})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	<-ctx.Done()
	return g.Stop()
}

// gateway starts a gateway with the world's Vault, in a process of its own and with what
// a configuration that is silent about leases gives.
func (w *vaultWorld) gateway(t *testing.T, way *way) *server {
	t.Helper()
	source := w.source
	source.Timeout = 0
	if way != nil {
		source.Address = way.URL
	}
	text, err := json.Marshal(source)
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	s, err := start(t.Context(), filepath.Join(t.TempDir(), gatewayDir), self, vaultGateway, string(text))
	must(t, err)
	t.Cleanup(s.Stop)
	w.roles(t, s.Endpoints)
	return s
}
