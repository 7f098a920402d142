package transport_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/gateway/audit/audittest"
	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/development"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/identity"
	"github.com/sallyport/sallyport/gateway/pipeline"
	"github.com/sallyport/sallyport/gateway/policy"
	"github.com/sallyport/sallyport/gateway/transport"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
)

const (
	patience = 30 * time.Second
	keyring  = "tenants/demo/keyrings/default"
)

// server serves one method, Encrypt, which gives back what it is given, after it
// was told to go on.
type server struct {
	grpc, rest, ca string
	workload       development.Pair

	entered  chan struct{} // one for each call that is being handled
	goOn     chan struct{} // closed to let them finish
	shutdown func(context.Context)
	stopped  chan struct{}
}

type register struct{ authn.Register }

func (register) Workloads(context.Context, string, int) ([]authn.Registration, error) {
	return []authn.Registration{{ID: "demo", SPIFFEID: development.DemoWorkload, Enabled: true}}, nil
}

func (register) Revocations(context.Context, authn.Fingerprint, int) ([]authn.Revocation, error) {
	return nil, nil
}

func (s *server) routes() []pipeline.Route {
	return []pipeline.Route{pipeline.Data("sallyport.data.v1.DataService.Encrypt", policy.ActionEncrypt,
		func(r *datav1.EncryptRequest, sub *pipeline.Subject) error { return sub.SetKeyring(r.GetName()) },
		func(_ context.Context, _ pipeline.Grant[identity.Workload], r *datav1.EncryptRequest, reply *datav1.EncryptResponse) error {
			s.entered <- struct{}{}
			<-s.goOn
			reply.Ciphertext = bytes.Clone(r.GetPlaintext())
			return nil
		})}
}

var defaults = transport.Limits{
	MaxRequestBytes: 1 << 16, MaxConnections: 100, MaxStreams: 100, MaxConnectionAge: time.Minute, RequestTimeout: patience,
}

func start(t *testing.T, limits transport.Limits, inFlight int) *server {
	t.Helper()
	s := &server{entered: make(chan struct{}, 100), goOn: make(chan struct{}), stopped: make(chan struct{})}
	dir := t.TempDir()
	servers, workloads := authority(t, dir, "servers"), authority(t, dir, "workloads")
	s.ca, s.workload = servers.CertFile, issue(t, workloads, dir, development.Leaf{SPIFFEID: development.DemoWorkload})
	own := issue(t, servers, dir, development.Leaf{CommonName: "localhost", Server: true})
	certificate, err := tls.LoadX509KeyPair(own.Cert, own.Key)
	must(t, err)
	listen := transport.Listeners{GRPC: listener(t), REST: listener(t)}
	s.grpc, s.rest = listen.GRPC.Addr().String(), listen.REST.Addr().String()
	server, err := transport.New(transport.Config{
		Listen: listen, Pipeline: s.pipeline(t, workloads.CertFile, inFlight), Data: s.routes(), Limits: limits,
		Certificate: func() *tls.Certificate { return &certificate }, Logger: slog.New(slog.DiscardHandler),
	})
	must(t, err)
	go func() { defer close(s.stopped); _ = server.Serve() }()
	s.shutdown = server.Shutdown
	t.Cleanup(func() { s.stop(); <-s.stopped })
	return s
}

// stop shuts down with time enough.
func (s *server) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s.shutdown(ctx)
}

func (s *server) pipeline(t *testing.T, bundle string, inFlight int) *pipeline.Pipeline {
	t.Helper()
	trust, err := authn.NewTrust(map[string][]byte{development.TrustDomain: read(t, bundle)}, nil)
	must(t, err)
	authenticator, err := authn.New(t.Context(), trust, register{}, time.Now)
	must(t, err)
	snapshot, err := policy.Compile([]policy.File{{Name: "all.cedar", Content: development.Policy}})
	must(t, err)
	engine := new(policy.Engine)
	engine.Swap(snapshot.At(1))
	p, err := pipeline.New(pipeline.Config{
		Authenticator: authenticator, Policy: engine, Log: audittest.New(), PseudonymKey: make([]byte, 32), MaxInFlight: inFlight,
		Logger: slog.New(slog.DiscardHandler), Now: time.Now, Metrics: pipeline.NewMetrics(prometheus.NewRegistry(), s.routes()),
	})
	must(t, err)
	return p
}

func authority(t *testing.T, dir, name string) *development.Authority {
	t.Helper()
	a, err := development.NewAuthority(dir, name)
	must(t, err)
	return a
}

func issue(t *testing.T, a *development.Authority, dir string, l development.Leaf) development.Pair {
	t.Helper()
	p := development.Pair{Cert: filepath.Join(dir, "leaf-"+l.CommonName+".pem"), Key: filepath.Join(dir, "leaf-"+l.CommonName+".key")}
	must(t, a.Issue(p.Cert, p.Key, l))
	return p
}

func listener(t *testing.T) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	return l
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return data
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *server) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := development.Dial(s.grpc, s.ca, s.workload)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// overGRPC and overREST make a call on a connection of its own, and give the
// reason of its refusal.
func (s *server) overGRPC(t *testing.T, payload string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	reply, err := datav1.NewDataServiceClient(s.dial(t)).Encrypt(ctx, &datav1.EncryptRequest{Name: keyring, Plaintext: []byte(payload)})
	if f, ok := fault.FromStatus(status.Convert(err)); ok {
		return f
	}
	if err == nil && string(reply.GetCiphertext()) != payload {
		return fmt.Errorf("answered with %q", reply.GetCiphertext())
	}
	return err
}

func (s *server) overREST(t *testing.T, payload string) error {
	config, err := development.ClientTLS(s.ca, s.workload)
	if err != nil {
		return err
	}
	rt := &http.Transport{TLSClientConfig: config}
	defer rt.CloseIdleConnections()
	body, err := json.Marshal(map[string][]byte{"plaintext": []byte(payload)})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "https://"+s.rest+"/v1/"+keyring+":encrypt", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Transport: rt, Timeout: patience}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var reply struct {
		fault.Problem
		Ciphertext []byte
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&reply); err != nil {
		return err
	}
	if f, ok := reply.Problem.Error(); ok {
		return f
	}
	if string(reply.Ciphertext) != payload {
		return fmt.Errorf("answered with %q", reply.Ciphertext)
	}
	return nil
}

func (s *server) protocols() map[string]func(*testing.T, string) error {
	return map[string]func(*testing.T, string) error{"gRPC": s.overGRPC, "REST": s.overREST}
}

// More calls than may be on the road at once are refused at once; those that are
// there finish.
func TestOverload(t *testing.T) {
	s := start(t, defaults, 2)
	var wg sync.WaitGroup
	for protocol, call := range s.protocols() {
		wg.Go(func() {
			if err := call(t, "attack at dawn"); err != nil {
				t.Errorf("%s: %v", protocol, err)
			}
		})
		<-s.entered
	}
	for protocol, call := range s.protocols() {
		if err := call(t, "x"); !errors.Is(err, fault.New(fault.Overloaded, "")) {
			t.Errorf("%s: %v", protocol, err)
		}
	}
	close(s.goOn)
	wg.Wait()
	for protocol, call := range s.protocols() {
		if err := call(t, "x"); err != nil {
			t.Errorf("%s, afterwards: %v", protocol, err)
		}
	}
}

// A message of exactly the limit is served; one byte more is refused with its
// reason.
func TestRequestLimit(t *testing.T) {
	s := start(t, defaults, 10)
	close(s.goOn)
	most := defaults.MaxRequestBytes - proto.Size(&datav1.EncryptRequest{Name: keyring, Plaintext: make([]byte, 1<<15)}) + 1<<15
	for extra, want := range []fault.Reason{0, fault.RequestTooLarge} {
		if got := reason(s.overGRPC(t, strings.Repeat("x", most+extra))); got != want {
			t.Errorf("%d bytes too many: %v", extra, got)
		}
	}
	// In JSON, groups of three bytes become four, between {"plaintext":" and "}.
	most = (defaults.MaxRequestBytes - len(`{"plaintext":""}`)) / 4 * 3
	for extra, want := range []fault.Reason{0, fault.RequestTooLarge} {
		if got := reason(s.overREST(t, strings.Repeat("x", most+extra))); got != want {
			t.Errorf("REST: %d bytes too many: %v", extra, got)
		}
	}
}

func reason(err error) fault.Reason {
	var f *fault.Error
	switch {
	case errors.As(err, &f):
		return f.Reason
	case err != nil:
		return fault.Internal
	}
	return 0
}

// Connections beyond the limit wait for a place; they are not served beside it.
func TestConnectionsWait(t *testing.T) {
	limits := defaults
	limits.MaxConnections = 1
	s := start(t, limits, 10)
	close(s.goOn)
	config, err := development.ClientTLS(s.ca, s.workload)
	must(t, err)
	first, err := tls.Dial("tcp", s.rest, config)
	must(t, err)
	waiting := make(chan error, 1)
	go func() {
		second, err := tls.Dial("tcp", s.rest, config)
		if err == nil {
			_ = second.Close()
		}
		waiting <- err
	}()
	select {
	case err := <-waiting:
		t.Fatalf("the second connection was served beside the first: %v", err)
	case <-time.After(200 * time.Millisecond): // long for a handshake on loopback
	}
	must(t, first.Close())
	select {
	case err := <-waiting:
		must(t, err)
	case <-time.After(patience):
		t.Fatal("the second connection was not served after the first")
	}
}

// Shutdown lets the calls that are there finish, refuses new ones, and returns when
// the last is answered.
func TestGracefulShutdown(t *testing.T) {
	s := start(t, defaults, 10)
	var wg sync.WaitGroup
	for protocol, call := range s.protocols() {
		wg.Go(func() {
			if err := call(t, "attack at dawn"); err != nil {
				t.Errorf("%s: %v", protocol, err)
			}
		})
		<-s.entered
	}
	down := make(chan struct{})
	go func() { defer close(down); s.stop() }()
	for protocol, address := range map[string]string{"gRPC": s.grpc, "REST": s.rest} {
		for open := true; open; { // until nobody listens
			conn, err := net.DialTimeout("tcp", address, patience)
			if open = err == nil; open {
				_ = conn.Close()
			}
		}
		select {
		case <-down:
			t.Fatalf("%s: shut down before the calls were answered", protocol)
		default:
		}
	}
	close(s.goOn)
	wg.Wait()
	<-down
	<-s.stopped
}

// A call that does not end is cut off when the time to drain is over.
func TestShutdownEnds(t *testing.T) {
	s := start(t, defaults, 10)
	failed := make(chan error, 1)
	go func() {
		failed <- s.overGRPC(t, "x")
		close(s.goOn) // the handler itself ends after its caller is gone
	}()
	<-s.entered
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.shutdown(ctx)
	<-s.stopped
	if err := <-failed; err == nil {
		t.Error("a call was answered after the time to drain")
	}
}

// Health is there for who has a certificate.
func TestHealth(t *testing.T) {
	s := start(t, defaults, 10)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	reply, err := healthv1.NewHealthClient(s.dial(t)).Check(ctx, &healthv1.HealthCheckRequest{})
	if err != nil || reply.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v", reply, err)
	}
	_, err = healthv1.NewHealthClient(s.dial(t)).Check(ctx, &healthv1.HealthCheckRequest{Service: "other"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("another service: %v", err)
	}
}
