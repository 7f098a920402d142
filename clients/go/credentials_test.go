package sallyport_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/gateway/fault"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
)

func TestMissingAndForeignFiles(t *testing.T) {
	a := newAuthority(t)
	good := a.files(t.TempDir(), a.issue("spiffe://test.example/app"))
	other := a.files(t.TempDir(), a.issue("spiffe://test.example/app"))
	for name, files := range map[string]sallyport.Files{
		"no certificate":          {Key: good.Key, CA: good.CA},
		"key of another":          {Certificate: good.Certificate, Key: other.Key, CA: good.CA},
		"no authority":            {Certificate: good.Certificate, Key: good.Key},
		"authority without a PEM": {Certificate: good.Certificate, Key: good.Key, CA: os.DevNull},
	} {
		if _, err := sallyport.Dial(t.Context(), "127.0.0.1:1", sallyport.Options{Credentials: files}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := sallyport.Dial(t.Context(), "127.0.0.1:1", sallyport.Options{}); err == nil {
		t.Error("no credentials: no error")
	}
}

// eventually calls until the gateway has seen the certificate.
func eventually(t *testing.T, c *sallyport.Client, f *fake, want tls.Certificate) {
	t.Helper()
	serial := want.Leaf.SerialNumber.String()
	for ctx := t.Context(); ; {
		if _, err := c.Keyring(ring).Encrypt(ctx, nil, nil); err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		seen := slices.Contains(f.callers, serial)
		f.mu.Unlock()
		if seen {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// New files are used by the next connection, without a new client and without a
// failed call.
func TestFilesRotate(t *testing.T) {
	f := &fake{encrypt: succeed}
	a := newAuthority(t)
	dir := t.TempDir()
	first, second := a.issue("spiffe://test.example/app"), a.issue("spiffe://test.example/app")
	c := dial(t, f.serve(a, impatient()), a.files(dir, first))
	eventually(t, c, f, first)

	// Half a replacement: certificate and key do not fit, the old pair goes on.
	writePEM(t, filepath.Join(dir, "cert.pem"), "CERTIFICATE", second.Certificate[0])
	for range 20 {
		if _, err := c.Keyring(ring).Encrypt(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	a.files(dir, second)
	eventually(t, c, f, second)
}

// A certificate that expires on an open connection is replaced by the new one in
// the files, within the call.
func TestExpiredCertificateIsReplaced(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	first, second := a.issue("spiffe://test.example/app"), a.issue("spiffe://test.example/app")
	f := &fake{}
	f.encrypt = func(context.Context, int, *datav1.EncryptRequest) (*datav1.EncryptResponse, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.attempts > 1 && f.callers[len(f.callers)-1] == first.Leaf.SerialNumber.String() {
			return nil, fault.New(fault.CertificateExpired, "")
		}
		return &datav1.EncryptResponse{}, nil
	}
	c := dial(t, f.serve(a), a.files(dir, first))
	if _, err := c.Keyring(ring).Encrypt(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Keyring(ring).Encrypt(t.Context(), nil, nil); !errors.Is(err, sallyport.CertificateExpired) || f.attempts != 2 {
		t.Fatalf("without a new certificate: %v after %d attempts", err, f.attempts)
	}
	a.files(dir, second)
	if _, err := c.Keyring(ring).Encrypt(t.Context(), nil, nil); err != nil {
		t.Fatalf("with a new certificate: %v", err)
	}
}

// agent is a SPIFFE Workload API on a socket.
type agent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	mu      sync.Mutex
	reply   *workload.X509SVIDResponse
	changed chan struct{}
}

func (s *agent) FetchX509SVID(_ *workload.X509SVIDRequest, stream grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	if md, _ := metadata.FromIncomingContext(stream.Context()); len(md.Get("workload.spiffe.io")) != 1 {
		return status.Error(codes.InvalidArgument, "the security header is missing")
	}
	for {
		s.mu.Lock()
		reply, changed := s.reply, s.changed
		s.mu.Unlock()
		if err := stream.Send(reply); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (s *agent) give(a *authority, c tls.Certificate) {
	a.t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		a.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reply = &workload.X509SVIDResponse{Svids: []*workload.X509SVID{{
		SpiffeId: c.Leaf.URIs[0].String(), X509Svid: c.Certificate[0], X509SvidKey: key, Bundle: a.cert.Raw,
	}}}
	if s.changed != nil {
		close(s.changed)
	}
	s.changed = make(chan struct{})
}

func (s *agent) serve(t *testing.T) (addr string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(g, s)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return "unix://" + path
}

// The Workload API gives the certificate and rotates it; the gateway is known by
// its SPIFFE id, or by an authority of the web.
func TestWorkloadAPI(t *testing.T) {
	a := newAuthority(t)
	ca := a.files(t.TempDir(), a.issue("spiffe://test.example/app")).CA
	for name, credentials := range map[string]sallyport.WorkloadAPI{
		"by SPIFFE id": {ServerID: "spiffe://test.example/gateway"},
		"by authority": {CA: ca},
	} {
		t.Run(name, func(t *testing.T) {
			f, s := &fake{encrypt: succeed}, &agent{}
			first, second := a.issue("spiffe://test.example/app"), a.issue("spiffe://test.example/app")
			s.give(a, first)
			credentials.Addr = s.serve(t)
			c := dial(t, f.serve(a, impatient()), credentials)
			eventually(t, c, f, first)
			s.give(a, second)
			eventually(t, c, f, second)
		})
	}
}

func TestWorkloadAPIRefusals(t *testing.T) {
	f, s := &fake{encrypt: succeed}, &agent{}
	a := newAuthority(t)
	s.give(a, a.issue("spiffe://test.example/app"))
	agentAddr := s.serve(t)

	// Another SPIFFE id than the gateway's.
	c := dial(t, f.serve(a), sallyport.WorkloadAPI{Addr: agentAddr, ServerID: "spiffe://test.example/somebody"})
	if _, err := c.Keyring(ring).Encrypt(t.Context(), nil, nil); !errors.Is(err, sallyport.Unavailable) || f.attempts != 0 {
		t.Errorf("a gateway with another id: %v", err)
	}

	for name, credentials := range map[string]sallyport.WorkloadAPI{
		"no address":     {ServerID: "spiffe://test.example/gateway"},
		"nobody trusted": {Addr: agentAddr},
		"two ways":       {Addr: agentAddr, ServerID: "spiffe://test.example/gateway", CA: "ca.pem"},
		"not an id":      {Addr: agentAddr, ServerID: "https://test.example"},
		"nobody there":   {Addr: "unix:///nowhere/agent.sock", ServerID: "spiffe://test.example/gateway"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if _, err := sallyport.Dial(ctx, "127.0.0.1:1", sallyport.Options{Credentials: credentials}); err == nil {
			t.Errorf("%s: no error", name)
		}
		cancel()
	}
}
