package sallyport

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/credentials"
)

// Credentials prove who the caller is and say which gateway the caller trusts:
// [Files] or [WorkloadAPI].
type Credentials interface {
	open(ctx context.Context) (identity, error)
}

// identity is where certificates come from while a client lives.
type identity interface {
	io.Closer
	// certificate gives the client certificate of the moment, its leaf parsed.
	certificate() (*tls.Certificate, error)
	// config gives the settings that verify the gateway, as of the moment.
	config() (*tls.Config, error)
}

// Files are PEM files. They are read again for every handshake, so that replacing
// them is all it takes to rotate them. While they do not fit together, as in the
// moment between two replacements, the ones before stay in use.
type Files struct {
	Certificate string // chain, leaf first
	Key         string // private key
	CA          string // the authorities that vouch for the gateway
	// ServerName is what the gateway's certificate must name. Empty means the host
	// that is dialled.
	ServerName string
}

func (f Files) open(context.Context) (identity, error) {
	s := &fileIdentity{files: f}
	if _, err := s.load(); err != nil {
		return nil, err
	}
	return s, nil
}

type fileIdentity struct {
	files Files
	mu    sync.Mutex
	last  pems // the last that fitted together
}

type pems struct {
	certificate *tls.Certificate
	roots       *x509.CertPool
}

func (s *fileIdentity) load() (pems, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, err := s.files.read()
	if err == nil {
		s.last = now
	} else if s.last.certificate == nil {
		return pems{}, err
	}
	return s.last, nil
}

func (f Files) read() (pems, error) {
	certificate, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
	if err != nil {
		return pems{}, fmt.Errorf("sallyport: client certificate: %w", err)
	}
	roots, err := readRoots(f.CA)
	return pems{&certificate, roots}, err
}

func readRoots(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("sallyport: authorities of the gateway: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("sallyport: authorities of the gateway: no certificate in %s", file)
	}
	return roots, nil
}

func (s *fileIdentity) certificate() (*tls.Certificate, error) {
	now, err := s.load()
	return now.certificate, err
}

func (s *fileIdentity) config() (*tls.Config, error) {
	now, err := s.load()
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: now.roots, ServerName: s.files.ServerName, MinVersion: tls.VersionTLS13}, nil
}

func (*fileIdentity) Close() error { return nil }

// WorkloadAPI takes the certificate from the SPIFFE Workload API, which rotates
// it. Exactly one of ServerID and CA says which gateway is trusted.
type WorkloadAPI struct {
	// Addr is the API's address, such as "unix:///run/spire/agent.sock".
	Addr string
	// ServerID is the gateway's SPIFFE id. The trust bundles that the API gives then
	// vouch for it.
	ServerID string
	// CA is a PEM file of the authorities that vouch for a gateway with an ordinary
	// certificate. It is read again for every handshake.
	CA string
	// ServerName is used with CA. Empty means the host that is dialled.
	ServerName string
}

// open waits until the API gives a certificate, or ctx ends.
func (w WorkloadAPI) open(ctx context.Context) (identity, error) {
	s := &spiffeIdentity{api: w}
	switch {
	case w.Addr == "":
		return nil, errors.New("sallyport: WorkloadAPI.Addr is empty")
	case (w.ServerID == "") == (w.CA == ""):
		return nil, errors.New("sallyport: exactly one of WorkloadAPI.ServerID and WorkloadAPI.CA is needed")
	case w.ServerID != "":
		id, err := spiffeid.FromString(w.ServerID)
		if err != nil {
			return nil, fmt.Errorf("sallyport: WorkloadAPI.ServerID: %w", err)
		}
		s.server = id
	}
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(w.Addr)))
	if err != nil {
		return nil, fmt.Errorf("sallyport: SPIFFE Workload API: %w", err)
	}
	s.X509Source = source
	return s, nil
}

type spiffeIdentity struct {
	*workloadapi.X509Source
	api    WorkloadAPI
	server spiffeid.ID
}

func (s *spiffeIdentity) certificate() (*tls.Certificate, error) {
	svid, err := s.GetX509SVID()
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
	for _, link := range svid.Certificates {
		c.Certificate = append(c.Certificate, link.Raw)
	}
	return c, nil
}

func (s *spiffeIdentity) config() (*tls.Config, error) {
	if s.api.CA == "" {
		c := tlsconfig.TLSClientConfig(s, tlsconfig.AuthorizeID(s.server))
		c.MinVersion = tls.VersionTLS13
		return c, nil
	}
	roots, err := readRoots(s.api.CA)
	return &tls.Config{RootCAs: roots, ServerName: s.api.ServerName, MinVersion: tls.VersionTLS13}, err
}

// handshaker makes each handshake with the certificates of the moment.
type handshaker struct {
	identity

	mu        sync.Mutex
	presented *x509.Certificate // in the last handshake
}

// ClientHandshake implements credentials.TransportCredentials.
func (h *handshaker) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	config, err := h.config()
	if err != nil {
		return nil, nil, err
	}
	certificate, err := h.certificate()
	if err != nil {
		return nil, nil, err
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	if config.ServerName != "" {
		authority = config.ServerName // which grpc-go overwrites with the authority
	}
	conn, info, err := credentials.NewTLS(config).ClientHandshake(ctx, authority, raw)
	if err == nil {
		h.mu.Lock()
		h.presented = certificate.Leaf
		h.mu.Unlock()
	}
	return conn, info, err
}

// renewed reports whether there is a certificate now that has not expired and was
// not the one presented last.
func (h *handshaker) renewed() bool {
	certificate, err := h.certificate()
	h.mu.Lock()
	defer h.mu.Unlock()
	return err == nil && h.presented != nil && time.Now().Before(certificate.Leaf.NotAfter) &&
		!bytes.Equal(certificate.Leaf.Raw, h.presented.Raw)
}

// ServerHandshake implements credentials.TransportCredentials.
func (*handshaker) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("sallyport: not a server")
}

// Info implements credentials.TransportCredentials.
func (*handshaker) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials. Copies share what was
// presented: it is about the client, not about one of them.
func (h *handshaker) Clone() credentials.TransportCredentials { return h }

// OverrideServerName implements credentials.TransportCredentials. The name is a
// matter of Credentials.
func (*handshaker) OverrideServerName(string) error {
	return errors.New("sallyport: set ServerName in the credentials")
}
