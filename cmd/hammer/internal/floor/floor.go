// Package floor serves what Sallyport is compared with: the same calls over the same
// transport with nothing behind them. A floor is what grpc-go or grpc-gateway give
// whoever uses them as they come; it is not tuned, and what Sallyport saves there is
// Sallyport's gain.
package floor

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
)

// loopback is where a floor listens: on ports that the system chooses.
const loopback = "127.0.0.1:0"

// Kind is one of the floors.
type Kind string

// The floors.
const (
	GRPC Kind = "grpc" // a unary echo over grpc-go
	REST Kind = "rest" // the same echo behind grpc-gateway over net/http
)

// Serve serves a floor until the context ends. It makes its certificates and
// endpoints.json in dir, and calls ready when it accepts connections.
func Serve(ctx context.Context, kind Kind, dir string, ready func()) error {
	tlsConfig, endpoints, err := newAuthority(dir)
	if err != nil {
		return err
	}
	var listen net.ListenConfig
	l, err := listen.Listen(ctx, "tcp", loopback)
	if err != nil {
		return err
	}
	ops, err := listen.Listen(ctx, "tcp", loopback)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	endpoints.Ops = ops.Addr().String()
	if kind == GRPC {
		endpoints.GRPC = l.Addr().String()
	} else {
		endpoints.REST = l.Addr().String()
	}
	if err := endpoints.Write(dir); err != nil {
		return errors.Join(err, l.Close(), ops.Close())
	}
	served := make(chan error, 2)
	metrics := &http.Server{Handler: metricsHandler(), ReadHeaderTimeout: time.Minute}
	go func() { served <- metrics.Serve(ops) }()
	defer func() { _ = metrics.Close() }()
	stop, err := start(kind, l, tlsConfig, served)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer stop()
	ready()
	select {
	case <-ctx.Done():
		return nil
	case err := <-served:
		return err
	}
}

// start serves the echo, and gives what stops it.
func start(kind Kind, l net.Listener, tlsConfig *tls.Config, served chan<- error) (stop func(), err error) {
	if kind == GRPC {
		s := grpc.NewServer(grpc.Creds(credentials.NewTLS(tlsConfig)))
		datav1.RegisterDataServiceServer(s, echo{})
		go func() { served <- s.Serve(l) }()
		return s.Stop, nil
	}
	mux := runtime.NewServeMux()
	if err := datav1.RegisterDataServiceHandlerServer(context.Background(), mux, echo{}); err != nil {
		return nil, err
	}
	s := &http.Server{Handler: mux, TLSConfig: tlsConfig, ReadHeaderTimeout: time.Minute}
	go func() { served <- s.ServeTLS(l, "", "") }()
	return func() { _ = s.Close() }, nil
}

// metricsHandler answers /metrics with the runtime's figures under the names that
// Sallyport gives them.
func metricsHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector())
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}
