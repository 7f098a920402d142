package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/gateway/development"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
)

// childVar, if set, makes the test binary a gateway in the directory that it names:
// one that can be killed.
const childVar = "SALLYPORT_TEST_CHILD"

// childVaultVar, if set, is the child's source of secrets: a config.Vault as JSON.
const childVaultVar = "SALLYPORT_TEST_VAULT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVar); dir != "" {
		if err := serveChild(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveChild serves until SIGTERM, or until its parent is gone.
func serveChild(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	settings := development.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)}
	if text := os.Getenv(childVaultVar); text != "" {
		w := &vaultWorld{}
		if err := json.Unmarshal([]byte(text), &w.source); err != nil {
			return err
		}
		settings.Change = w.change
	}
	g, err := development.Start(ctx, settings)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	<-ctx.Done()
	return g.Stop()
}

// child is a gateway in a process of its own.
type child struct {
	*exec.Cmd
	gw *gatewaytest.Gateway // of which only Endpoints and Dir are there
}

// startChild starts a gateway in a directory, and returns when it serves.
func startChild(t *testing.T, dir string, environment ...string) child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(append(os.Environ(), childVar+"="+dir), environment...), os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	_, err = cmd.StdinPipe() // open for as long as this process lives
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); strings.TrimSpace(line) != "ready" {
		t.Fatalf("the child said %q, %v", line, err)
	}
	c := child{cmd, &gatewaytest.Gateway{Gateway: &development.Gateway{}, Dir: dir}}
	must(t, json.Unmarshal(read(t, filepath.Join(dir, "endpoints.json")), &c.gw.Endpoints))
	return c
}

// stop ends the child as an operator would.
func (c child) stop(t *testing.T) {
	t.Helper()
	must(t, c.Process.Signal(syscall.SIGTERM))
	must(t, c.Wait())
}
