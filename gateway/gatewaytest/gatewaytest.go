// Package gatewaytest runs a real gateway in a test, in one line:
//
//	gw := gatewaytest.Start(t)
//
// It is the whole gateway with embedded defaults: SQLite, a local KEK, an audit
// log on disk, and real TLS on free ports of loopback. The tenant demo has the
// keyring default, and the workload of gw.Endpoints.Workload may use it.
package gatewaytest

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"

	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/gateway/development"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// Gateway is a gateway that runs for the length of a test.
type Gateway struct {
	*development.Gateway
	Dir string

	t testing.TB
}

// Option changes how a gateway is started.
type Option func(*development.Config)

// WithConfig changes the gateway's configuration.
func WithConfig(change func(*config.Config)) Option {
	return func(c *development.Config) { c.Change = change }
}

// WithDir starts the gateway in a directory that another one may have used.
func WithDir(dir string) Option { return func(c *development.Config) { c.Dir = dir } }

// WithLogger gives the gateway a logger. Without one it logs nothing.
func WithLogger(l *slog.Logger) Option { return func(c *development.Config) { c.Logger = l } }

// Start runs a gateway until the test ends. It fails the test if the gateway does
// not start, or does not stop cleanly.
func Start(t testing.TB, options ...Option) *Gateway {
	t.Helper()
	c := development.Config{Logger: slog.New(slog.DiscardHandler)}
	for _, o := range options {
		o(&c)
	}
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	g, err := development.Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Stop(); err != nil {
			t.Errorf("gatewaytest: stopping: %v", err)
		}
	})
	return &Gateway{Gateway: g, Dir: c.Dir, t: t}
}

// Dial connects to a listener with a certificate, until the test ends.
func (g *Gateway) Dial(address string, p development.Pair) *grpc.ClientConn {
	g.t.Helper()
	conn, err := development.Dial(address, g.Endpoints.CA, p)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Issue makes a certificate of one of the gateway's authorities.
func (g *Gateway) Issue(a *development.Authority, l development.Leaf) development.Pair {
	g.t.Helper()
	dir := g.t.TempDir()
	p := development.Pair{Cert: filepath.Join(dir, "leaf.pem"), Key: filepath.Join(dir, "leaf.key")}
	if err := a.Issue(p.Cert, p.Key, l); err != nil {
		g.t.Fatal(err)
	}
	return p
}

// Register registers a workload of the development trust domain, and gives its
// certificate.
func (g *Gateway) Register(id, spiffeID string, automation bool) development.Pair {
	g.t.Helper()
	client := controlv1.NewWorkloadServiceClient(g.Dial(g.Endpoints.Control, g.Endpoints.Operator))
	_, err := client.RegisterWorkload(context.Background(), &controlv1.RegisterWorkloadRequest{
		WorkloadId: id, SpiffeId: spiffeID, Automation: automation,
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return g.Issue(g.Workloads, development.Leaf{SPIFFEID: spiffeID})
}
