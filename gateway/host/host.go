// Package host goes from a configuration file to a running gateway: it opens the
// store, the KEKs and the audit log, listens, and reloads certificates. It is
// what sallyportd, the development command and gatewaytest have in common. It
// makes no credentials.
package host

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/journal"
	"github.com/sallyport/sallyport/gateway/audit/tlog"
	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/gateway/store/sqlite"
	"github.com/sallyport/sallyport/gateway/transport"
	"github.com/sallyport/sallyport/keys"
)

// Options are what a configuration file does not say.
type Options struct {
	Logger *slog.Logger
	// OnGRPC, if set, is given each gRPC server before it serves.
	OnGRPC func(*grpc.Server)
}

// Host is an assembled gateway with what it holds open.
type Host struct {
	config  config.Config
	logger  *slog.Logger
	store   *sqlite.Store
	keks    []keys.KEK
	keys    *keys.Keeper
	leases  *lease.Book
	log     *tlog.Log
	gateway *gateway.Gateway
	commits prometheus.Histogram // of the audit journal
	// sourceSeconds is what calls of sources took.
	sourceSeconds *prometheus.HistogramVec
	listen        transport.Listeners
	files         []*watched
	closers       []func() error
	drainFor      time.Duration
}

// Open opens everything that the configuration names and assembles the gateway.
// It creates nothing: what is missing is an error that says who makes it.
func Open(ctx context.Context, c config.Config, o Options) (_ *Host, err error) {
	h := &Host{config: c, logger: o.Logger, commits: newCommits(), sourceSeconds: newSourceSeconds(), drainFor: c.Limits.DrainTimeout}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	if err := h.openStore(ctx); err != nil {
		return nil, err
	}
	if err := h.openKeys(ctx); err != nil {
		return nil, err
	}
	if err := h.openLeases(ctx); err != nil {
		return nil, err
	}
	if err := h.openLog(ctx); err != nil {
		return nil, err
	}
	pseudonymKey, err := os.ReadFile(c.Audit.PseudonymKey)
	if err != nil {
		return nil, fmt.Errorf("audit.pseudonym_key: %w", err)
	}
	if err := h.openListeners(); err != nil {
		return nil, err
	}
	h.registerMetrics(metrics)

	var certificate atomic.Pointer[tls.Certificate]
	var trust atomic.Pointer[authn.Trust]
	h.files = []*watched{
		watchCertificate(c.TLS, &certificate),
		watchTrust(c.Trust, func(t *authn.Trust) {
			trust.Store(t)
			if h.gateway != nil {
				h.gateway.SetTrust(t)
			}
		}),
	}
	for _, w := range h.files {
		if err := w.load(); err != nil {
			return nil, err
		}
	}
	h.gateway, err = gateway.New(ctx, gateway.Config{
		Keys: h.keys, Register: h.store, Archive: h.store, Log: h.log, Leases: h.leases, PseudonymKey: pseudonymKey,
		Trust: trust.Load(), TrustDomains: trustDomains(c), Certificate: certificate.Load,
		Listen: h.listen, Limits: limits(c), MaxInFlight: c.Limits.MaxInFlight,
		Checks: h.checks(), Metrics: metrics, Logger: o.Logger, Now: time.Now, OnGRPC: o.OnGRPC,
	})
	return h, err
}

// Addresses are where the gateway listens, as host:port; empty where it does not.
type Addresses struct{ GRPC, REST, Control, Ops string }

// Addresses tells where the gateway listens.
func (h *Host) Addresses() Addresses {
	of := func(l net.Listener) string {
		if l == nil {
			return ""
		}
		return l.Addr().String()
	}
	return Addresses{of(h.listen.GRPC), of(h.listen.REST), of(h.listen.Control), of(h.listen.Ops)}
}

// Serve serves until the context ends, drains, and closes what is open.
func (h *Host) Serve(ctx context.Context) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { watch(background, h.logger, h.files...) })
	wg.Go(func() { giveBack(background) })
	err := h.gateway.Serve(ctx, h.drainFor)
	stop()
	wg.Wait()
	return errors.Join(err, h.Close())
}

// Close closes what is open, last opened first. It is for a Host that does not
// serve; Serve closes by itself.
func (h *Host) Close() error {
	var errs []error
	for i := len(h.closers) - 1; i >= 0; i-- {
		errs = append(errs, h.closers[i]())
	}
	h.closers = nil
	return errors.Join(errs...)
}

func (h *Host) openStore(ctx context.Context) error {
	s, err := sqlite.Open(ctx, h.config.Store.SQLite)
	if err != nil {
		return fmt.Errorf("store.sqlite: %w", err)
	}
	h.store = s
	h.closers = append(h.closers, s.Close)
	return nil
}

// maxSealLag is how long a closed segment may await sealing before the gateway
// reports that it is not ready.
const maxSealLag = time.Minute

// closeTimeout bounds the last flush of the audit log.
const closeTimeout = 10 * time.Second

func (h *Host) openLog(ctx context.Context) error {
	a := h.config.Audit
	text, err := os.ReadFile(a.Key)
	if err != nil {
		return fmt.Errorf("audit.key: %w", err)
	}
	key, err := audit.ParsePrivateKey(text)
	if err != nil {
		return fmt.Errorf("audit.key: %w", err)
	}
	if key.Name() != a.Origin {
		return fmt.Errorf("audit.key: the key is of log %q, and audit.origin is %q", key.Name(), a.Origin)
	}
	h.log, err = tlog.Open(ctx, tlog.Config{
		Dir: a.Directory, Key: key, SegmentAge: a.SegmentAge, Timeout: a.AppendTimeout, Logger: h.logger,
		MaxLag: a.SegmentAge + maxSealLag, OnCommit: func(c journal.Commit) { h.commits.Observe(c.Sync.Seconds()) },
	})
	if err != nil {
		return fmt.Errorf("audit.directory: %w", err)
	}
	h.closers = append(h.closers, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		return h.log.Close(ctx)
	})
	return nil
}

func (h *Host) openListeners() error {
	c := h.config.Listen
	for _, l := range []struct {
		name, address string
		to            *net.Listener
	}{
		{"grpc", c.GRPC, &h.listen.GRPC},
		{"rest", c.REST, &h.listen.REST},
		{"control", c.Control, &h.listen.Control},
		{"ops", c.Ops, &h.listen.Ops},
	} {
		if l.address == "" {
			continue
		}
		listener, err := net.Listen("tcp", l.address)
		if err != nil {
			return fmt.Errorf("listen.%s: %w", l.name, err)
		}
		*l.to = listener
		h.closers = append(h.closers, func() error {
			if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		})
	}
	return nil
}

func trustDomains(c config.Config) []string {
	var names []string
	for _, d := range c.Trust.Domains {
		names = append(names, d.Name)
	}
	return names
}

func limits(c config.Config) transport.Limits {
	l := c.Limits
	return transport.Limits{
		MaxRequestBytes: l.MaxRequestBytes, MaxConnections: l.MaxConnections, MaxStreams: uint32(l.MaxStreams),
		MaxConnectionAge: l.MaxConnectionAge, RequestTimeout: l.RequestTimeout,
	}
}
