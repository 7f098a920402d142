// Package transport turns bytes into typed requests and replies into bytes:
// listeners, TLS, limits and deadlines; gRPC, and REST by grpc-gateway, over the
// same table of routes. It decides nothing about callers; it carries what their
// connections proved.
package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/sallyport/sallyport/gateway/authn"
)

// serverTLS is the only constructor of a server's TLS configuration.
//
// A client certificate is demanded and its key proved in the handshake, but who
// vouches for it is for package authn to judge, on every call: a refusal can then
// say why, and there is no second place that decides. Sessions are not resumed,
// because a resumed handshake would skip what was checked in the first one.
func serverTLS(certificate func() *tls.Certificate, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		ClientAuth:             tls.RequireAnyClientCert,
		SessionTicketsDisabled: true,
		NextProtos:             protocols,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return certificate(), nil
		},
		VerifyConnection: func(s tls.ConnectionState) error {
			if s.DidResume || len(s.PeerCertificates) == 0 {
				return errors.New("transport: a client certificate is required in a full handshake")
			}
			return nil
		},
	}
}

// evidenceCredentials adds each connection's evidence to what grpc-go knows of it.
type evidenceCredentials struct {
	credentials.TransportCredentials
}

// connInfo is a connection's AuthInfo.
type connInfo struct {
	credentials.TLSInfo
	evidence *authn.Evidence
}

// ServerHandshake completes the TLS handshake and takes the evidence.
func (c evidenceCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	tlsInfo, ok := info.(credentials.TLSInfo)
	if !ok {
		_ = conn.Close()
		return nil, nil, errors.New("transport: not a TLS connection")
	}
	return conn, connInfo{tlsInfo, authn.NewEvidence(tlsInfo.State)}, nil
}

// Clone implements credentials.TransportCredentials.
func (c evidenceCredentials) Clone() credentials.TransportCredentials {
	return evidenceCredentials{c.TransportCredentials.Clone()}
}

// evidenceOf gives the evidence of the connection that a gRPC or HTTP call came
// on. Without any it gives nil, which nobody is authenticated by.
func evidenceOf(ctx context.Context) *authn.Evidence {
	if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		return x.evidence
	}
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(connInfo); ok {
			return info.evidence
		}
	}
	return nil
}

// httpConn is what is known of an HTTP connection. The evidence is taken when the
// first request shows that the handshake is complete.
type httpConn struct {
	accepted time.Time
	once     sync.Once
	evidence *authn.Evidence
}

// connKey is the context key of a connection's *httpConn.
type connKey struct{}

func withHTTPConn(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, &httpConn{accepted: time.Now()})
}

func (c *httpConn) evidenceFrom(s *tls.ConnectionState) *authn.Evidence {
	c.once.Do(func() {
		if s != nil {
			c.evidence = authn.NewEvidence(*s)
		}
	})
	return c.evidence
}
