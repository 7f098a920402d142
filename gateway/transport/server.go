package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sallyport/sallyport/gateway/pipeline"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

// DataServices are the services of the data plane.
func DataServices() []protoreflect.ServiceDescriptor {
	return []protoreflect.ServiceDescriptor{
		service(datav1.File_sallyport_data_v1_data_proto, "DataService"),
		service(secretsv1.File_sallyport_secrets_v1_secrets_proto, "SecretService"),
	}
}

// ControlServices are the services of the control plane.
func ControlServices() []protoreflect.ServiceDescriptor {
	f, secrets := controlv1.File_sallyport_control_v1_control_proto, controlv1.File_sallyport_control_v1_secrets_proto
	return []protoreflect.ServiceDescriptor{
		service(f, "KeyringService"), service(f, "WorkloadService"), service(f, "PolicyService"),
		service(secrets, "SecretRoleService"), service(secrets, "LeaseService"),
	}
}

func service(f protoreflect.FileDescriptor, name protoreflect.Name) protoreflect.ServiceDescriptor {
	return f.Services().ByName(name)
}

// Listeners are where the gateway is reached. A nil listener is not served.
type Listeners struct {
	GRPC, REST net.Listener // the data plane
	Control    net.Listener // the control plane, gRPC and REST
	Ops        net.Listener // health and metrics; loopback
}

// Config is what a Server is made of. Listeners may be nil; the rest is required.
type Config struct {
	Listen        Listeners
	Pipeline      *pipeline.Pipeline
	Data, Control []pipeline.Route // the table, by plane
	// Certificate gives the server certificate of the moment.
	Certificate func() *tls.Certificate
	Limits      Limits
	// Ops answers on the operations listener.
	Ops    http.Handler
	Logger *slog.Logger
	// OnGRPC, if set, is given each gRPC server before it serves.
	OnGRPC func(*grpc.Server)
}

// Server serves the listeners.
type Server struct {
	config Config
	health *health.Server
	grpc   []*grpc.Server
	http   []*http.Server
	serve  []func() error
}

// New makes a Server. It does not accept connections yet.
func New(c Config) (*Server, error) {
	s := &Server{config: c, health: health.NewServer()}
	s.health.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
	if c.Listen.GRPC != nil {
		g := newGRPC(c.Pipeline, c.Data, DataServices(), serverTLS(c.Certificate, "h2"), c.Limits, s.health)
		s.addGRPC(g)
		l := netutil.LimitListener(c.Listen.GRPC, c.Limits.MaxConnections)
		s.serve = append(s.serve, func() error { return g.Serve(l) })
	}
	if c.Listen.REST != nil {
		h, err := newREST(c.Pipeline, c.Data, dataREST, c.Limits)
		if err != nil {
			return nil, err
		}
		s.addHTTP(c.Listen.REST, h, true)
	}
	if c.Listen.Control != nil {
		h, err := newREST(c.Pipeline, c.Control, controlREST, c.Limits)
		if err != nil {
			return nil, err
		}
		g := newGRPC(c.Pipeline, c.Control, ControlServices(), nil, c.Limits, s.health)
		s.addGRPC(g)
		s.addHTTP(c.Listen.Control, bothProtocols(g, h), true)
	}
	if c.Listen.Ops != nil {
		s.addHTTP(c.Listen.Ops, c.Ops, false)
	}
	return s, nil
}

var dataREST = []register{
	func(ctx context.Context, m *runtime.ServeMux, c grpc.ClientConnInterface) error {
		return datav1.RegisterDataServiceHandlerClient(ctx, m, datav1.NewDataServiceClient(c))
	},
	func(ctx context.Context, m *runtime.ServeMux, c grpc.ClientConnInterface) error {
		return secretsv1.RegisterSecretServiceHandlerClient(ctx, m, secretsv1.NewSecretServiceClient(c))
	},
}

var controlREST = []register{
	func(ctx context.Context, m *runtime.ServeMux, c grpc.ClientConnInterface) error {
		return controlv1.RegisterKeyringServiceHandlerClient(ctx, m, controlv1.NewKeyringServiceClient(c))
	},
	func(ctx context.Context, m *runtime.ServeMux, c grpc.ClientConnInterface) error {
		return controlv1.RegisterWorkloadServiceHandlerClient(ctx, m, controlv1.NewWorkloadServiceClient(c))
	},
	func(ctx context.Context, m *runtime.ServeMux, c grpc.ClientConnInterface) error {
		return controlv1.RegisterPolicyServiceHandlerClient(ctx, m, controlv1.NewPolicyServiceClient(c))
	},
	func(ctx context.Context, m *runtime.ServeMux, c grpc.ClientConnInterface) error {
		return controlv1.RegisterSecretRoleServiceHandlerClient(ctx, m, controlv1.NewSecretRoleServiceClient(c))
	},
	func(ctx context.Context, m *runtime.ServeMux, c grpc.ClientConnInterface) error {
		return controlv1.RegisterLeaseServiceHandlerClient(ctx, m, controlv1.NewLeaseServiceClient(c))
	},
}

// bothProtocols serves gRPC and REST on one listener. The evidence reaches both in
// the request's context.
func bothProtocols(g *grpc.Server, rest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			rest.ServeHTTP(w, r)
			return
		}
		x := &exchange{}
		if conn, ok := r.Context().Value(connKey{}).(*httpConn); ok {
			x.evidence = conn.evidenceFrom(r.TLS)
		}
		g.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x)))
	})
}

func (s *Server) addGRPC(g *grpc.Server) {
	if s.config.OnGRPC != nil {
		s.config.OnGRPC(g)
	}
	s.grpc = append(s.grpc, g)
}

func (s *Server) addHTTP(l net.Listener, h http.Handler, mutualTLS bool) {
	limits := s.config.Limits
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: min(limits.RequestTimeout, 10*time.Second),
		ReadTimeout:       limits.RequestTimeout,
		WriteTimeout:      2 * limits.RequestTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ConnContext:       withHTTPConn,
		ErrorLog:          slog.NewLogLogger(s.config.Logger.Handler(), slog.LevelDebug),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: int(limits.MaxStreams)},
	}
	l = netutil.LimitListener(l, limits.MaxConnections)
	s.http = append(s.http, server)
	if !mutualTLS {
		s.serve = append(s.serve, func() error { return server.Serve(l) })
		return
	}
	server.TLSConfig = serverTLS(s.config.Certificate, "h2", "http/1.1")
	s.serve = append(s.serve, func() error { return server.ServeTLS(l, "", "") })
}

// Serve accepts connections until Shutdown. It returns the first listener's
// failure, or nil after Shutdown.
func (s *Server) Serve() error {
	s.health.SetServingStatus("", healthv1.HealthCheckResponse_SERVING)
	errs := make(chan error, len(s.serve))
	var wg sync.WaitGroup
	for _, serve := range s.serve {
		wg.Go(func() {
			if err := serve(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, grpc.ErrServerStopped) {
				errs <- err
				s.stop()
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// Shutdown stops accepting, lets calls finish until the context ends, and then
// cuts the rest off.
func (s *Server) Shutdown(ctx context.Context) {
	s.health.Shutdown()
	done := make(chan struct{})
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		for _, h := range s.http {
			wg.Go(func() { _ = h.Shutdown(ctx) })
		}
		for _, g := range s.grpc {
			wg.Go(g.GracefulStop)
		}
		wg.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	s.stop()
	<-done
}

func (s *Server) stop() {
	for _, h := range s.http {
		_ = h.Close()
	}
	for _, g := range s.grpc {
		g.Stop()
	}
}
