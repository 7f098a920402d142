package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/sallyport/sallyport/cmd/hammer/internal/child"
	"github.com/sallyport/sallyport/cmd/hammer/internal/target"
)

// startTimeout bounds the start of a server.
const startTimeout = 30 * time.Second

// server is a server that runs as a child.
type server struct {
	*child.Process
	target.Endpoints
}

// start runs a program that serves in dir, and waits until it is ready.
func start(ctx context.Context, dir, program string, args ...string) (*server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	p, err := child.Start(ctx, dir+".log", program, append(args, "--dir", dir)...)
	if err != nil {
		return nil, err
	}
	e, err := target.ReadEndpoints(filepath.Join(dir, target.FileName))
	if err != nil {
		p.Stop()
		return nil, err
	}
	return &server{p, e}, nil
}

// startFloor runs one of the floors, with the given program of this kind.
func startFloor(ctx context.Context, hammer, name, dir string) (*server, error) {
	return start(ctx, filepath.Join(dir, name), hammer, name)
}

// gatewayDir is the directory of the development gateway under that of a run.
const gatewayDir = "gateway"

// startGateway runs a development gateway on ports of loopback that are free.
func startGateway(ctx context.Context, bin, dir string) (*server, error) {
	const free = "127.0.0.1:0"
	return start(ctx, filepath.Join(dir, gatewayDir), filepath.Join(bin, "sallyport-dev"),
		"--grpc", free, "--rest", free, "--control", free, "--ops", free)
}

// itself is this program's own path, and beside its folder, where the others are
// built too.
func itself() string {
	self, err := os.Executable()
	if err != nil {
		return filepath.Join("bin", "hammer")
	}
	return self
}

func beside() string { return filepath.Dir(itself()) }

// readiness asks /readyz, and fails unless the server says that it is ready.
func (s *server) readiness(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Ops+"/readyz", nil)
	if err != nil {
		return err
	}
	reply, err := new(http.Client).Do(r)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return fmt.Errorf("/readyz answers %s", reply.Status)
	}
	return nil
}
