package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/gateway/pipeline"
	"github.com/sallyport/sallyport/gateway/policy"
	"github.com/sallyport/sallyport/gateway/transport"
	"github.com/sallyport/sallyport/keys"
)

// Config is what a Gateway is made of: implementations, not names. Fields are
// required unless they say otherwise.
type Config struct {
	Keys     *keys.Keeper
	Register authn.Register
	Archive  policy.Archive
	Log      audit.Log
	// Leases is the book of what was leased. The gateway sweeps it while it serves.
	Leases *lease.Book
	// PseudonymKey is the HMAC key of context values in audit records.
	PseudonymKey []byte

	Trust *authn.Trust
	// TrustDomains are the names of the trust domains in Trust.
	TrustDomains []string
	// Certificate gives the server certificate of the moment.
	Certificate func() *tls.Certificate

	Listen      transport.Listeners
	Limits      transport.Limits
	MaxInFlight int
	// Checks are the conditions of readiness that the gateway cannot see itself.
	Checks  []transport.Check
	Metrics *prometheus.Registry
	Logger  *slog.Logger
	Now     func() time.Time
	// OnGRPC, if set, is given each gRPC server before it serves.
	OnGRPC func(*grpc.Server)
}

// Gateway is a gateway that is assembled and checked, and serves when Serve is
// called.
type Gateway struct {
	config        Config
	authenticator *authn.Authenticator
	pipeline      *pipeline.Pipeline
	server        *transport.Server
}

// New assembles a gateway. It fails if the table of routes disagrees with what the
// protos declare, or if the stored register or policy cannot be read.
func New(ctx context.Context, c Config) (*Gateway, error) {
	authenticator, err := authn.New(ctx, c.Trust, c.Register, c.Now)
	if err != nil {
		return nil, err
	}
	engine, err := loadPolicy(ctx, c.Archive)
	if err != nil {
		return nil, err
	}
	table, err := routes(c, authenticator, engine)
	if err != nil {
		return nil, err
	}
	road, err := pipeline.New(pipeline.Config{
		Authenticator: authenticator, Policy: engine, Log: c.Log, PseudonymKey: c.PseudonymKey,
		MaxInFlight: c.MaxInFlight, Logger: c.Logger, Now: c.Now,
		Metrics: pipeline.NewMetrics(c.Metrics, table.all()),
	})
	if err != nil {
		return nil, err
	}
	server, err := transport.New(transport.Config{
		Listen: c.Listen, Pipeline: road, Data: table.data, Control: table.control,
		Certificate: c.Certificate, Limits: c.Limits, Ops: transport.NewOps(c.Metrics, c.Checks),
		Logger: c.Logger, OnGRPC: c.OnGRPC,
	})
	if err != nil {
		return nil, err
	}
	return &Gateway{config: c, authenticator: authenticator, pipeline: road, server: server}, nil
}

// loadPolicy compiles the stored policy. Before the first load there is none, and
// everything is denied.
func loadPolicy(ctx context.Context, a policy.Archive) (*policy.Engine, error) {
	b, err := a.Bundle(ctx)
	if err != nil {
		return nil, err
	}
	snapshot, err := policy.Compile(b.Files)
	if err != nil {
		return nil, fmt.Errorf("the stored policy: %w", err)
	}
	engine := new(policy.Engine)
	engine.Swap(snapshot.At(b.Revision))
	return engine, nil
}

// SetTrust replaces the authorities that vouch for callers, for open connections
// too.
func (g *Gateway) SetTrust(t *authn.Trust) { g.authenticator.SetTrust(t) }

// Serve serves until the context ends, then lets calls finish for at most drain.
// It returns when every goroutine of the gateway has ended.
func (g *Gateway) Serve(ctx context.Context, drain time.Duration) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { g.pipeline.Run(background) })
	wg.Go(func() { g.tend(background) })
	wg.Go(func() { g.config.Leases.Run(background, leaseNotes{g}) })
	served := make(chan error, 1)
	wg.Go(func() { served <- g.server.Serve() })

	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
		shutdown, cancel := context.WithTimeout(background, drain)
		g.pipeline.Drain()
		g.server.Shutdown(shutdown)
		cancel()
		err = <-served
	}
	stop()
	wg.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
