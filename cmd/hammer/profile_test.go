//go:build measure

package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/cmd/hammer/internal/loop"
	"github.com/sallyport/sallyport/cmd/hammer/internal/target"
	"github.com/sallyport/sallyport/gateway/development"
)

var (
	profileOut  = flag.String("profile", "", "TestProfile: file for the gateway's CPU profile")
	profileOp   = flag.String("op", string(target.Encrypt), "TestProfile: operation to profile")
	profileRest = flag.Bool("rest", false, "TestProfile: over REST, not gRPC")
	profileTime = flag.Duration("for", 5*time.Second, "TestProfile: how long")
)

// profiledGateway is the first argument of a process of this test binary that is a
// gateway which profiles itself; the released programs hold no profiler.
const profiledGateway = "profiled-gateway"

func TestMain(m *testing.M) {
	serve := map[string]func(setting, dir string) error{profiledGateway: serveProfiled, vaultGateway: serveVault}
	if len(os.Args) > 4 && serve[os.Args[1]] != nil {
		if err := serve[os.Args[1]](os.Args[2], os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveProfiled runs a development gateway in dir until it is told to end, and
// writes the profile of its life to out.
func serveProfiled(out, dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	g, err := development.Start(ctx, development.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	fmt.Println("ready")
	<-ctx.Done()
	pprof.StopCPUProfile()
	if err := f.Close(); err != nil {
		return err
	}
	return g.Stop()
}

// TestProfile profiles a gateway under load, in a process of its own so that the
// profile holds nothing of the load:
//
//	go test -tags measure ./cmd/hammer -run TestProfile -profile build/cpu.out
//	go tool pprof -top build/cpu.out
func TestProfile(t *testing.T) {
	if *profileOut == "" {
		t.Skip("-profile FILE is not given")
	}
	out, err := filepath.Abs(*profileOut)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s, err := start(t.Context(), filepath.Join(t.TempDir(), gatewayDir), self, profiledGateway, out)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	const callers = 32
	var client target.Client
	if *profileRest {
		client, err = target.NewREST(s.Endpoints, demoKeyring, callers, false)
	} else {
		client, err = target.NewGRPC(t.Context(), s.Endpoints, demoKeyring)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	w := target.Work{Op: target.Op(*profileOp), Size: 1024, Context: target.ConstantContext}
	if w.Op == target.BatchEncrypt || w.Op == target.BatchDecrypt {
		w.Size, w.Items = 100, 1000
	}
	call, err := w.Call(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	before, err := s.CPU()
	if err != nil {
		t.Fatal(err)
	}
	r := loop.Run(t.Context(), callers, *profileTime, call)
	after, err := s.CPU()
	if err != nil {
		t.Fatal(err)
	}
	if r.Failed > 0 {
		t.Errorf("%d failed: %v", r.Failed, r.Err)
	}
	t.Logf("%.0f %s/s, %v of server CPU each; profile in %s", r.Rate(), w.Op, (after-before)/time.Duration(max(r.Ops, 1)), out)
}
