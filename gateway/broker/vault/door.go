package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/crypto/secret"
)

const (
	// maxAnswer is how long an answer may be.
	maxAnswer   = 1 << 20
	dialTimeout = 5 * time.Second
	idleTimeout = time.Minute
	// idleConnections is how many connections are kept for the next calls.
	idleConnections = 64
)

// errTooLong reports an answer above maxAnswer.
var errTooLong = errors.New("the answer is too long")

// door is the only way to Vault. The client library above it reads addresses, tokens,
// namespaces, headers and proxies from the environment; what leaves through the door
// is made anew from the configuration and the call, whatever the library put into the
// request. So is where it goes.
type door struct {
	base      *url.URL
	namespace string
	caFile    string
	name      string // of the server, if not the one of the address

	mu        sync.Mutex
	transport *http.Transport // shared; nil until it is needed
}

// callKey is the context key under which a request finds its call.
type callKey struct{}

// RoundTrip implements http.RoundTripper.
func (d *door) RoundTrip(r *http.Request) (*http.Response, error) {
	c, ok := r.Context().Value(callKey{}).(*call)
	if !ok {
		return nil, errors.New("a request that is no call of ours")
	}
	out := (&http.Request{
		Method: c.method,
		URL:    &url.URL{Scheme: d.base.Scheme, Host: d.base.Host, Path: "/v1/" + c.path},
		Host:   d.base.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
	}).WithContext(r.Context())
	if err := d.dress(out, c); err != nil {
		return nil, err
	}
	if c.lasting {
		out = outlast(out, c)
	}
	transport := c.transport
	if transport == nil {
		var err error
		if transport, err = d.shared(); err != nil {
			return nil, err
		}
	}
	answer, err := transport.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	answer.Body = &limited{answer.Body, maxAnswer}
	return answer, nil
}

// outlast lets Vault finish a call even if we hang up, or die. Vault gives a call up
// when the connection ends, and where that happens while the database makes an account
// Vault forgets the account: nobody ends it then. Vault, like every server of Go's
// net/http, watches the connection by reading one byte ahead; a blank line after the
// request is that byte, and the end behind it is not seen until the answer is written.
// There are enough of them that not all go into the buffer with the request. RFC 9112,
// 2.2 tells servers to ignore one, and none is looked at, because the connection is
// not used again. A proxy before Vault that ends connections by itself takes this away.
func outlast(out *http.Request, c *call) *http.Request {
	out.Close = true
	return out.WithContext(httptrace.WithClientTrace(out.Context(), &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { c.conn, _ = i.Conn.(*connection) },
		// The end of the request is in a buffer then, and the next write sends it: what
		// is written here would come before the request.
		WroteRequest: func(i httptrace.WroteRequestInfo) {
			if i.Err == nil && c.conn != nil {
				c.conn.last.Store(true)
			}
		},
	}))
}

// blankLines are more than the 4096 bytes that net/http reads at once.
var blankLines = strings.Repeat("\r\n", 2<<10+1)

// connection sends blank lines after what is written last.
type connection struct {
	net.Conn
	last atomic.Bool
	// buffer is net/http's, into which the answer is read; the first read shows it.
	buffer atomic.Pointer[[]byte]
}

// Read implements net.Conn.
func (c *connection) Read(b []byte) (int, error) {
	if c.buffer.Load() == nil {
		c.buffer.Store(&b)
	}
	return c.Conn.Read(b)
}

// wipe wipes the buffer, which the answer has been read from to its end. It is for a
// connection that is not used again; others overwrite theirs with the next answer.
func (c *connection) wipe() {
	if c == nil {
		return
	}
	if b := c.buffer.Load(); b != nil {
		secret.Wipe(*b)
	}
}

// Write implements net.Conn.
func (c *connection) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err == nil && c.last.CompareAndSwap(true, false) {
		_, err = io.WriteString(c.Conn, blankLines)
	}
	return n, err
}

// dress gives a request its headers, all of them, and its body.
func (d *door) dress(out *http.Request, c *call) error {
	out.Header.Set("User-Agent", "sallyport")
	out.Header.Set("X-Vault-Request", "true") // Vault's protection against forged requests
	if d.namespace != "" {
		out.Header.Set("X-Vault-Namespace", d.namespace)
	}
	if c.body != nil {
		out.Header.Set("Content-Type", "application/json")
		out.Body, out.ContentLength = c.body.reader(), int64(len(c.body.b))
	}
	if c.anonymous {
		return nil
	}
	return c.token.Use(func(b []byte) error {
		// A Go string, which stays in memory until it is collected: net/http takes no
		// other. It is a token of one use, or one that is replaced every hour.
		out.Header.Set("X-Vault-Token", string(b))
		return nil
	})
}

// shared gives the transport that calls share.
func (d *door) shared() (*http.Transport, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.transport == nil {
		t, err := d.newTransport(nil)
		if err != nil {
			return nil, err
		}
		d.transport = t
	}
	return d.transport, nil
}

// reopen makes the next call read the file of authorities again.
func (d *door) reopen() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.transport != nil {
		d.transport.CloseIdleConnections()
		d.transport = nil
	}
}

// newTransport makes a transport that shows the certificate, if there is one.
func (d *door) newTransport(certificate *tls.Certificate) (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: d.name}
	if d.caFile != "" {
		text, err := os.ReadFile(d.caFile)
		if err != nil {
			return nil, fmt.Errorf("reading the authorities of Vault: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, errors.New("the file of Vault's authorities holds no certificate")
		}
	}
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
	}
	if config.ServerName == "" {
		config.ServerName = d.base.Hostname()
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	return &http.Transport{
		Proxy: nil, // not even the environment's
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &connection{Conn: conn}, nil
		},
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
			defer cancel()
			conn, err := (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &connection{Conn: conn}, nil
		},
		// Vault compresses nothing, and a bomb would.
		DisableCompression:     true,
		MaxIdleConns:           idleConnections,
		MaxIdleConnsPerHost:    idleConnections,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: 64 << 10,
	}, nil
}

// limited fails when more is read than may be.
type limited struct {
	io.ReadCloser
	left int
}

// Read implements io.Reader.
func (l *limited) Read(b []byte) (int, error) {
	if l.left < 0 {
		return 0, errTooLong
	}
	n, err := l.ReadCloser.Read(b[:min(len(b), l.left+1)])
	if l.left -= n; l.left < 0 {
		return 0, errTooLong
	}
	return n, err
}

// body is what a call sends. It may hold a secret, so it is wiped; the transport may
// still be reading it then.
type body struct {
	mu sync.Mutex
	b  []byte
}

func (b *body) wipe() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	secret.Wipe(b.b)
	b.b = nil
}

func (b *body) reader() io.ReadCloser { return &bodyReader{body: b} }

type bodyReader struct {
	body *body
	at   int
}

// Read implements io.Reader.
func (r *bodyReader) Read(to []byte) (int, error) {
	r.body.mu.Lock()
	defer r.body.mu.Unlock()
	if r.at >= len(r.body.b) {
		return 0, io.EOF
	}
	n := copy(to, r.body.b[r.at:])
	r.at += n
	return n, nil
}

// Close implements io.Closer.
func (r *bodyReader) Close() error { return nil }

// withCall gives a context in which the door finds a call.
func withCall(ctx context.Context, c *call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}
