package sallyport_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	sallyport "github.com/sallyport/sallyport/clients/go"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
)

const ring = "tenants/demo/keyrings/default"

// authority is a certificate authority that lives in memory.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, next: 2}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: "test.example"}},
	}
	a.key = newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, err = x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate for a SPIFFE id, of a server on loopback too.
func (a *authority) issue(id string) tls.Certificate {
	a.t.Helper()
	uri, err := url.Parse(id)
	if err != nil {
		a.t.Fatal(err)
	}
	a.next++
	key := newKey(a.t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(a.next),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{uri}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// files writes certificate, key and authority, and gives their paths.
func (a *authority) files(dir string, c tls.Certificate) sallyport.Files {
	a.t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		a.t.Fatal(err)
	}
	f := sallyport.Files{
		Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "ca.pem"),
	}
	writePEM(a.t, f.Certificate, "CERTIFICATE", c.Certificate[0])
	writePEM(a.t, f.Key, "PRIVATE KEY", key)
	writePEM(a.t, f.CA, "CERTIFICATE", a.cert.Raw)
	return f
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fake answers the data plane as a test says. It is for what a real gateway does
// not do when asked: failing in every way there is.
type fake struct {
	datav1.UnimplementedDataServiceServer
	controlv1.UnimplementedKeyringServiceServer

	encrypt func(ctx context.Context, attempt int, r *datav1.EncryptRequest) (*datav1.EncryptResponse, error)
	batch   func(r *datav1.BatchEncryptRequest) (*datav1.BatchEncryptResponse, error)
	rotate  func() error

	mu       sync.Mutex
	attempts int
	callers  []string // the serial number that each call's certificate has
}

func (f *fake) count(ctx context.Context) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attempts++
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			f.callers = append(f.callers, info.State.PeerCertificates[0].SerialNumber.String())
		}
	}
	return f.attempts
}

func (f *fake) Encrypt(ctx context.Context, r *datav1.EncryptRequest) (*datav1.EncryptResponse, error) {
	n := f.count(ctx)
	_ = grpc.SetTrailer(ctx, metadata.Pairs(sallyport.ReceiptTrailer, "receipt-"+string(rune('0'+n))))
	return f.encrypt(ctx, n, r)
}

func (f *fake) BatchEncrypt(ctx context.Context, r *datav1.BatchEncryptRequest) (*datav1.BatchEncryptResponse, error) {
	f.count(ctx)
	return f.batch(r)
}

func (f *fake) RotateKeyring(ctx context.Context, _ *controlv1.RotateKeyringRequest) (*controlv1.Keyring, error) {
	f.count(ctx)
	return nil, f.rotate()
}

// serve starts the fake with a certificate of the authority.
func (f *fake) serve(a *authority, options ...grpc.ServerOption) (addr string) {
	a.t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		a.t.Fatal(err)
	}
	s := grpc.NewServer(append(options, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{a.issue("spiffe://test.example/gateway")},
		ClientAuth:   tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13,
	})))...)
	datav1.RegisterDataServiceServer(s, f)
	controlv1.RegisterKeyringServiceServer(s, f)
	go func() { _ = s.Serve(l) }()
	a.t.Cleanup(s.Stop)
	return l.Addr().String()
}

// impatient ends connections soon, as the gateway does after minutes.
func impatient() grpc.ServerOption {
	return grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 50 * time.Millisecond})
}

func dial(t *testing.T, addr string, c sallyport.Credentials, change ...func(*sallyport.Options)) *sallyport.Client {
	t.Helper()
	o := sallyport.Options{Credentials: c}
	for _, f := range change {
		f(&o)
	}
	client, err := sallyport.Dial(t.Context(), addr, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func succeed(context.Context, int, *datav1.EncryptRequest) (*datav1.EncryptResponse, error) {
	return &datav1.EncryptResponse{Ciphertext: []byte("sealed"), Version: 3}, nil
}
