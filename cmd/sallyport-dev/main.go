// Command sallyport-dev runs a whole gateway on one machine, for development: it
// makes certificates, keys and data under one directory and serves on loopback.
// It is a command of its own so that sallyportd holds no code that makes
// credentials.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/gateway/development"
	"github.com/sallyport/sallyport/gateway/host"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "sallyport-dev:", err)
		os.Exit(1)
	}
}

func run() error {
	var c development.Config
	verbose := flag.Bool("verbose", false, "log every call that fails, and more")
	flag.StringVar(&c.Dir, "dir", "", "directory of everything the gateway needs; made if missing (required)")
	flag.StringVar(&c.GRPC, "grpc", "127.0.0.1:8441", "address of the data plane, gRPC")
	flag.StringVar(&c.REST, "rest", "127.0.0.1:8442", "address of the data plane, REST")
	flag.StringVar(&c.Control, "control", "127.0.0.1:8443", "address of the control plane")
	flag.StringVar(&c.Ops, "ops", "127.0.0.1:8444", "address of health and metrics")
	sources := flag.String("sources", "", "YAML `file` with a sources section as sallyportd has it, to lease from besides")
	flag.Parse()
	if c.Dir == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	level := slog.LevelWarn
	if *verbose {
		level = slog.LevelDebug
	}
	c.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))

	if *sources != "" {
		more, err := readSources(*sources)
		if err != nil {
			return err
		}
		c.Change = func(s *config.Config) {
			s.Sources.LocalCA = append(s.Sources.LocalCA, more.LocalCA...)
			s.Sources.Vault = append(s.Sources.Vault, more.Vault...)
		}
	}

	host.TuneMemory()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	g, err := development.Start(ctx, c)
	if err != nil {
		return err
	}
	fmt.Print(instructions(c.Dir, g.Endpoints))
	fmt.Println("ready")
	failed := make(chan error, 1)
	go func() { failed <- g.Wait() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return g.Stop()
	}
}

func readSources(path string) (config.Sources, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return config.Sources{}, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return config.Sources{}, err
	}
	return config.ParseSources(text, filepath.Dir(path))
}

// command is the sallyport command that was built beside this one.
func command() string {
	self, err := os.Executable()
	if err != nil {
		return "sallyport"
	}
	return filepath.Join(filepath.Dir(self), "sallyport")
}
