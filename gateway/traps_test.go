package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/gateway/development"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// clientTLS is the TLS configuration of a caller, for tests that change it.
func clientTLS(t *testing.T, gw *gatewaytest.Gateway, p development.Pair, protocols ...string) *tls.Config {
	t.Helper()
	c, err := development.ClientTLS(gw.Endpoints.CA, p)
	if err != nil {
		t.Fatal(err)
	}
	c.NextProtos = protocols
	return c
}

func dialTLS(t *testing.T, address string, c *tls.Config) (*tls.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := (&tls.Dialer{Config: c}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn.(*tls.Conn), nil
}

// mutual are the listeners that ask for a certificate, with a protocol that each
// speaks.
func mutual(gw *gatewaytest.Gateway) map[string]struct{ address, protocol string } {
	return map[string]struct{ address, protocol string }{
		"gRPC": {gw.Endpoints.GRPC, "h2"}, "REST": {gw.Endpoints.REST, "http/1.1"},
		"control": {gw.Endpoints.Control, "http/1.1"},
	}
}

// A client that keeps sessions never resumes one (X7): what a full handshake
// proves is proved by every connection.
func TestSessionsAreNotResumed(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	for name, at := range mutual(gw) {
		c := clientTLS(t, gw, gw.Endpoints.Workload, at.protocol)
		c.ClientSessionCache = tls.NewLRUClientSessionCache(8)
		for range 3 {
			conn, err := dialTLS(t, at.address, c)
			if err != nil {
				t.Fatal(name, err)
			}
			if conn.ConnectionState().DidResume {
				t.Errorf("%s: the session was resumed", name)
			}
			readOnce(conn) // a ticket would come with the first bytes
		}
	}
}

// readOnce makes the client process what the server sends after the handshake.
func readOnce(conn *tls.Conn) {
	if conn.ConnectionState().NegotiatedProtocol == "http/1.1" {
		_, _ = io.WriteString(conn, "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	_, _ = conn.Read(make([]byte, 1))
}

// A revoked identity is refused on the connection that it has, and on a new one,
// whatever its client remembers (X7).
func TestRevokedClientWithSessionCache(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	c := clientTLS(t, gw, gw.Endpoints.Workload)
	c.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	transport := &http.Transport{TLSClientConfig: c}
	client := &http.Client{Transport: transport, Timeout: patience}
	ask := func() answer {
		q := encrypt("x")
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
			"https://"+gw.Endpoints.REST+"/v1/"+q.keyring+":encrypt", bytes.NewReader(q.body()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		return send(t, client, req)
	}
	if a := ask(); a.reason != admitted || a.untyped != nil {
		t.Fatal(a.reason, a.untyped)
	}
	revoke(t, controlv1.NewWorkloadServiceClient(gw.Dial(gw.Endpoints.Control, gw.Endpoints.Operator)), gw.Endpoints.Workload)
	for _, connection := range []string{"open", "new"} {
		if a := ask(); a.reason != fault.CertificateRevoked {
			t.Errorf("on the %s connection: %v %v", connection, a.reason, a.untyped)
		}
		transport.CloseIdleConnections()
	}
}

// Without a client certificate, and with an older TLS, there is no connection.
func TestHandshakesThatFail(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	for name, at := range mutual(gw) {
		for what, change := range map[string]func(*tls.Config){
			"no certificate": func(c *tls.Config) { c.Certificates = nil },
			"TLS 1.2":        func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		} {
			c := clientTLS(t, gw, gw.Endpoints.Workload, at.protocol)
			change(c)
			conn, err := dialTLS(t, at.address, c)
			if err == nil { // in TLS 1.3 the refusal comes with the first reading
				_, err = conn.Read(make([]byte, 1))
			}
			if remote := (*net.OpError)(nil); !errors.As(err, &remote) || remote.Op != "remote error" {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
	}
	for name, at := range mutual(gw) {
		t.Run("plaintext/"+name, func(t *testing.T) {
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", at.address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, _ = io.WriteString(conn, "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
			reply, _ := io.ReadAll(conn)
			if bytes.Contains(reply, []byte("swagger")) {
				t.Errorf("served without TLS: %q", reply)
			}
		})
	}
}

// Paths are literal: no escape, no dot segment, no empty segment and no query finds
// a way to a handler. They are sent by hand, because clients tidy paths up.
func TestDisguisedPaths(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	const plain = "/v1/tenants/demo/keyrings/default:encrypt"
	if code := rawREST(t, gw, "POST", plain); code != http.StatusOK {
		t.Fatalf("the plain path: %d", code)
	}
	for _, path := range []string{
		"/v1/tenants/demo/keyrings/default%3Aencrypt", "/v1/tenants%2Fdemo/keyrings/default:encrypt",
		"/v1/tenants/demo/keyrings/%64efault:encrypt", "/v1/tenants/demo/keyrings/default%253Aencrypt",
		"/v1//tenants/demo/keyrings/default:encrypt", "//v1/tenants/demo/keyrings/default:encrypt",
		"/v1/./tenants/demo/keyrings/default:encrypt", "/v1/tenants/x/../demo/keyrings/default:encrypt",
		"/v1/tenants/demo/keyrings/default:encrypt/", "/v1/tenants/demo/keyrings/default:encrypt;x=y",
		"/v1/tenants/demo/keyrings/default:encrypt?", "/v1/tenants/demo/keyrings/default:encrypt?name=tenants/demo/keyrings/other",
		"/v1/tenants/demo/keyrings/default:ENCRYPT", "/V1/tenants/demo/keyrings/default:encrypt",
		"/v1/tenants/demo\\keyrings/default:encrypt", "/v1/tenants/demo/keyrings/default:encrypt%00",
		"/v1/tenants/demo/keyrings/default:encrypt:encrypt", "/v1/tenants/demo/keyrings/default%E2%80%8B:encrypt",
		"/sallyport.data.v1.DataService/Encrypt", "/v1/tenants/demo/keyrings/default",
	} {
		if code := rawREST(t, gw, "POST", path); code < 400 || code >= 500 {
			t.Errorf("%s: %d", path, code)
		}
	}
}

// rawREST sends a good body to a path as it is written, with further header lines.
func rawREST(t *testing.T, gw *gatewaytest.Gateway, verb, path string, header ...string) int {
	t.Helper()
	conn, err := dialTLS(t, gw.Endpoints.REST, clientTLS(t, gw, gw.Endpoints.Workload, "http/1.1"))
	if err != nil {
		t.Fatal(err)
	}
	const body = `{"plaintext":"eA=="}`
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", verb, path, len(body))
	for _, line := range header {
		_, _ = io.WriteString(conn, line+"\r\n")
	}
	_, _ = io.WriteString(conn, "\r\n"+body)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(path, err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// A length in two forms is how requests are smuggled.
func TestAmbiguousLengthIsRefused(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	for _, lines := range [][]string{
		{"Content-Length: 3"},
		{"Transfer-Encoding: chunked", "Transfer-Encoding: identity"},
		{"Transfer-Encoding: xchunked"},
		{"Content-Length : 20"},
		{"Content-Length: +20"},
	} {
		if code := rawREST(t, gw, "POST", "/v1/tenants/demo/keyrings/default:encrypt", lines...); code < 400 {
			t.Errorf("%q: %d", lines, code)
		}
	}
}

// smuggled are headers that some server somewhere believes.
func smuggled(other string) http.Header {
	h := http.Header{
		"X-Http-Method-Override": {"DELETE"}, "X-Original-Url": {"/v1/" + foreignKeyring + ":decrypt"},
		"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Host": {"other"}, "X-Forwarded-Proto": {"http"},
		"Forwarded":               {"for=127.0.0.1;by=" + other},
		"X-Forwarded-Client-Cert": {`By=x;Hash=00;Subject="";URI=` + other}, "X-Ssl-Cert": {"x"},
		"X-Tenant": {"neighbour"}, "Authorization": {"Bearer x"}, "Cookie": {"session=x"},
	}
	for _, key := range []string{"Authorization", "Sallyport-Receipt", "Name", "X-Forwarded-Client-Cert", "Grpc-Timeout", "Caller-Bin"} {
		h.Set("Grpc-Metadata-"+key, "x")
		h["grpc-metadata-"+strings.ToLower(key)] = []string{"x"}
	}
	return h
}

// Who calls and what is answered do not depend on any header: an unregistered
// caller gains nothing by them, and the demo workload loses nothing. The audit
// record names the certificate's owner.
func TestHeadersDoNotChangeTheCaller(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	nobody := gw.Issue(gw.Workloads, development.Leaf{SPIFFEID: "spiffe://" + development.TrustDomain + "/nobody"})
	q := encrypt("attack at dawn", here)
	q.http = func(r *http.Request) {
		for name, values := range smuggled(development.DemoWorkload) {
			r.Header[name] = values
		}
	}
	overREST(t, gw, nobody).refused(t, q, fault.WorkloadNotRegistered)
	ask := overREST(t, gw, gw.Endpoints.Workload)
	for name, values := range smuggled("spiffe://" + development.TrustDomain + "/nobody") {
		q.http = func(r *http.Request) { r.Header[name] = values }
		a := ask(t, q)
		if a.reason != admitted || a.untyped != nil {
			t.Errorf("%s: %v %v", name, a.reason, a.untyped)
			continue
		}
		if r := recordOf(t, gw, a.receipt); r.GetCaller() != development.DemoWorkload {
			t.Errorf("%s: recorded as %q", name, r.GetCaller())
		}
	}
}

// A form post with a method override reaches nothing on the control plane either
// (X12).
func TestControlPlaneTakesNoForms(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	client := browser(t, gw, gw.Endpoints.Operator)
	for _, override := range []string{"", "GET", "DELETE", "PATCH"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+gw.Endpoints.Control+"/v1/workloads", strings.NewReader("page_size=1"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("X-HTTP-Method-Override", override)
		if a := send(t, client, req); a.reason != fault.UnsupportedMediaType {
			t.Errorf("override %q: %v %v", override, a.reason, a.untyped)
		}
	}
}

// A method is found by the name that it is registered under, and by nothing that
// looks like it. The frames are written by hand: a gRPC client would not send such
// paths.
func TestMethodsAreFoundByRegisteredName(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	for _, path := range []string{
		"sallyport.data.v1.DataService/Encrypt", "//sallyport.data.v1.DataService/Encrypt",
		"/sallyport.data.v1.DataService//Encrypt", "/sallyport.data.v1.DataService/encrypt",
		"/SALLYPORT.data.v1.DataService/Encrypt", "/sallyport.data.v1.DataService/Encrypt/",
		"/sallyport.data.v1.DataService%2FEncrypt", "/sallyport.data.v1.DataService/./Encrypt",
		"/sallyport.data.v1.DataService", "/", "/sallyport.control.v1.KeyringService/ListTenants",
		"/grpc.reflection.v1.Reflection/Nothing", "/grpc.channelz.v1.Channelz/GetServers",
	} {
		s := rawGRPC(t, gw, path)
		if s.code == "0" || len(s.data) > 0 {
			t.Errorf("%s: served: status %s, %d bytes", path, s.code, len(s.data))
		}
	}
	if s := rawGRPC(t, gw, "/sallyport.data.v1.DataService/Encrypt"); s.code != "0" || len(s.data) == 0 {
		t.Errorf("the registered path: status %q", s.code)
	}
}

type stream struct {
	code string // grpc-status
	data []byte
}

// rawGRPC makes one call with a path as it is written.
func rawGRPC(t *testing.T, gw *gatewaytest.Gateway, path string) (s stream) {
	t.Helper()
	conn, err := dialTLS(t, gw.Endpoints.GRPC, clientTLS(t, gw, gw.Endpoints.Workload, "h2"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range [][2]string{
		{":method", "POST"},
		{":scheme", "https"},
		{":path", path},
		{":authority", "localhost"},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
	} {
		_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	message := encrypt("x").message()
	err = errors.Join(framer.WriteSettings(), framer.WriteSettingsAck(),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}),
		framer.WriteData(1, true, append([]byte{0, 0, 0, 0, byte(len(message))}, message...)))
	if err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return s // a connection that is closed has answered nothing
		}
		switch f := frame.(type) {
		case *http2.DataFrame:
			s.data = append(s.data, f.Data()...)
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return s
		case *http2.MetaHeadersFrame:
			for _, field := range f.Fields {
				if field.Name == "grpc-status" {
					s.code = field.Value
				}
			}
			if f.StreamEnded() {
				return s
			}
		}
	}
}

// Nothing that a library registers by itself is served, on any listener (X17).
func TestNoDebugPages(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	client := browser(t, gw, gw.Endpoints.Operator)
	for _, base := range []string{"http://" + gw.Endpoints.Ops, "https://" + gw.Endpoints.REST, "https://" + gw.Endpoints.Control} {
		for _, path := range []string{
			"/debug/requests", "/debug/events", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/vars", "/debug/", "/",
			"/statusz", "/channelz", "/index.html", "/metrics/x",
		} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s%s: %s", base, path, resp.Status)
			}
		}
	}
}

// What is served without a credential is short: here it is.
func TestOpsListenerServesThreePages(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		if code, _ := get(t, gw, path); code != http.StatusOK {
			t.Errorf("%s: %d", path, code)
		}
	}
	if _, body := get(t, gw, "/metrics"); strings.Contains(body, "tenants/") || strings.Contains(body, "spiffe://") || strings.Contains(body, "demo") {
		t.Error("the metrics name tenants or callers")
	}
}

// Reflection is for development.
func TestReflectionOnlyInDevelopment(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	if err := listServices(t, gw.Dial(gw.Endpoints.GRPC, gw.Endpoints.Workload)); err != nil {
		t.Errorf("in development: %v", err)
	}
	plain := startPlain(t)
	for _, address := range []string{plain.Endpoints.GRPC, plain.Endpoints.Control} {
		if err := listServices(t, plain.Dial(address, plain.Endpoints.Operator)); status.Code(err) != codes.Unimplemented {
			t.Errorf("in a plain gateway: %v", err)
		}
	}
}

func listServices(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	request := &reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}
	if err := s.Send(request); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	_, err = s.Recv()
	return err
}

// A header list beyond the limit is refused before anything is decided.
func TestHugeHeaders(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t, gatewaytest.WithConfig(func(c *config.Config) { c.Limits.RequestTimeout = 5 * time.Second }))
	if code := rawREST(t, gw, "POST", "/v1/tenants/demo/keyrings/default:encrypt", "X-Long: "+strings.Repeat("x", 64<<10)); code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("REST: %d", code)
	}
	overREST(t, gw, gw.Endpoints.Workload).must(t, encrypt("x"))
}
