package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/pipeline"
	"github.com/sallyport/sallyport/proto/openapi"
)

// ReceiptHeader is the REST response header that carries a call's receipt.
const ReceiptHeader = "Sallyport-Receipt"

// exchange is one REST request and its reply, from the listener to the road.
type exchange struct {
	evidence *authn.Evidence
	header   http.Header // of the reply
	writer   *http.ResponseController
	// malformed is why the body was refused. grpc-gateway carries decoding errors as
	// text, so the decoder leaves the reason here.
	malformed *fault.Error
	// used are the messages to be wiped when the reply is written.
	used []proto.Message
	// stream is what the replies come from, if there are several; unsent is true if one
	// of them could not be written.
	stream *pipeline.Stream
	unsent bool
}

func (x *exchange) wipe() {
	for _, m := range x.used {
		pipeline.WipePlaintext(m)
	}
}

type exchangeKey struct{}

// inProcess is the connection that grpc-gateway's generated clients call through.
// It takes each call down the same road as gRPC, with the evidence of the REST
// caller's own connection.
type inProcess struct {
	pipeline *pipeline.Pipeline
	routes   map[string]*pipeline.Route
	timeout  time.Duration // for writing a message of a stream
}

func newInProcess(p *pipeline.Pipeline, routes []pipeline.Route, timeout time.Duration) inProcess {
	c := inProcess{p, map[string]*pipeline.Route{}, timeout}
	for i := range routes {
		c.routes[routes[i].Path()] = &routes[i]
	}
	return c
}

// Invoke implements grpc.ClientConnInterface.
func (c inProcess) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	x, ok := ctx.Value(exchangeKey{}).(*exchange)
	route := c.routes[method]
	if !ok || route == nil {
		return fault.New(fault.UnknownMethod, "")
	}
	if x.malformed != nil {
		return x.malformed
	}
	req, out := args.(proto.Message), reply.(proto.Message)
	x.used = append(x.used, req, out)
	receipt, err := c.pipeline.Serve(ctx, route, x.evidence, req, out)
	if receipt.Count > 0 {
		x.header.Set(ReceiptHeader, receipt.String())
	}
	return err
}

// NewStream implements grpc.ClientConnInterface.
func (c inProcess) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	x, ok := ctx.Value(exchangeKey{}).(*exchange)
	route := c.routes[method]
	if !ok || route == nil || !route.Stream {
		return nil, fault.New(fault.UnknownMethod, "")
	}
	if x.malformed != nil {
		return nil, x.malformed
	}
	return &inProcessStream{ctx: ctx, exchange: x, pipeline: c.pipeline, route: route, timeout: c.timeout}, nil
}

// inProcessStream is a stream that grpc-gateway reads: each message is made when it is
// asked for.
type inProcessStream struct {
	ctx      context.Context
	exchange *exchange
	pipeline *pipeline.Pipeline
	route    *pipeline.Route
	stream   *pipeline.Stream
	timeout  time.Duration // for writing a message
	first    proto.Message // made when the request was sent
}

// SendMsg takes the request and makes the first reply, so that a refusal is answered
// as that of any other method.
func (s *inProcessStream) SendMsg(m any) error {
	s.stream = s.pipeline.Open(s.route, s.exchange.evidence, m.(proto.Message))
	s.exchange.stream = s.stream
	s.first = s.route.NewReply()
	receipt, err := s.stream.Next(s.ctx, s.first)
	if receipt.Count > 0 {
		s.exchange.header.Set(ReceiptHeader, receipt.String())
	}
	return err
}

// RecvMsg gives the next reply. The one before it has been written, or the stream
// would have ended.
func (s *inProcessStream) RecvMsg(m any) error {
	reply := m.(proto.Message)
	s.exchange.wipe()
	s.exchange.used = append(s.exchange.used[:0], reply)
	if s.first != nil {
		proto.Merge(reply, s.first)
		pipeline.WipePlaintext(s.first)
		s.first = nil
		return nil
	}
	// The listener's deadlines are for a request and one reply.
	_ = s.exchange.writer.SetReadDeadline(time.Time{})
	_ = s.exchange.writer.SetWriteDeadline(time.Time{})
	_, err := s.stream.Next(s.ctx, reply)
	_ = s.exchange.writer.SetWriteDeadline(time.Now().Add(s.timeout))
	return err
}

// Header implements grpc.ClientStream.
func (*inProcessStream) Header() (metadata.MD, error) { return nil, nil }

// Trailer implements grpc.ClientStream.
func (*inProcessStream) Trailer() metadata.MD { return nil }

// CloseSend implements grpc.ClientStream.
func (*inProcessStream) CloseSend() error { return nil }

// Context implements grpc.ClientStream.
func (s *inProcessStream) Context() context.Context { return s.ctx }

// rest serves REST: it checks the shape of a request, and hands it to grpc-gateway
// with its body read and bounded.
type rest struct {
	mux    *runtime.ServeMux
	limits Limits
}

// register is the form of the generated RegisterXServiceHandlerClient functions
// once a client is made.
type register func(context.Context, *runtime.ServeMux, grpc.ClientConnInterface) error

func newREST(p *pipeline.Pipeline, routes []pipeline.Route, services []register, l Limits) (*rest, error) {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &jsonMarshaler{}),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithUnescapingMode(runtime.UnescapingModeLegacy),
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithErrorHandler(writeError),
		runtime.WithRoutingErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, _ int) {
			fault.WriteProblem(w, fault.New(fault.UnknownMethod, ""))
		}),
	)
	conn := newInProcess(p, routes, l.RequestTimeout)
	for _, r := range services {
		if err := r(context.Background(), mux, conn); err != nil {
			return nil, err
		}
	}
	return &rest{mux, l}, nil
}

// writeError answers with the problem that the exchange or the error holds.
func writeError(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok && x.malformed != nil {
		fault.WriteProblem(w, x.malformed)
		return
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		// What is left are grpc-gateway's own complaints about path and query.
		f = fault.Wrap(fault.MalformedRequest, "", err)
	}
	fault.WriteProblem(w, f)
}

// ServeHTTP implements http.Handler.
func (s *rest) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method == http.MethodGet && r.URL.Path == "/openapi.json" {
		h.Set("Content-Type", "application/json")
		_, _ = w.Write(openapi.JSON)
		return
	}
	if f := checkShape(r); f != nil {
		fault.WriteProblem(w, f)
		return
	}
	body, f := readBody(w, r, s.limits.MaxRequestBytes)
	if f != nil {
		fault.WriteProblem(w, f)
		return
	}
	defer clear(body)

	conn, ok := r.Context().Value(connKey{}).(*httpConn)
	if !ok {
		fault.WriteProblem(w, fault.New(fault.Internal, ""))
		return
	}
	if time.Since(conn.accepted) > s.limits.MaxConnectionAge {
		h.Set("Connection", "close")
	}
	x := &exchange{evidence: conn.evidenceFrom(r.TLS), header: h, writer: http.NewResponseController(w)}
	r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	r.Body = &jsonBody{Reader: bytes.NewReader(body), bytes: body, exchange: x}
	s.mux.ServeHTTP(wipingWriter{w, x}, r)
	if x.stream != nil && x.unsent {
		x.stream.Unsent()
	}
	x.wipe()
}

// wipingWriter wipes what it has written: replies come from grpc-gateway, which
// leaves its buffer to the garbage collector.
type wipingWriter struct {
	http.ResponseWriter
	exchange *exchange
}

// FlushError is for http.ResponseController.
func (w wipingWriter) FlushError() error {
	err := http.NewResponseController(w.ResponseWriter).Flush()
	w.exchange.unsent = w.exchange.unsent || err != nil
	return err
}

// Unwrap is for http.ResponseController.
func (w wipingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Write implements io.Writer, but for keeping what it is given.
func (w wipingWriter) Write(p []byte) (int, error) {
	if len(p) > 1 { // a stream's delimiter is written again and again
		defer clear(p)
	}
	n, err := w.ResponseWriter.Write(p)
	w.exchange.unsent = w.exchange.unsent || err != nil
	return n, err
}

// checkShape refuses what two readers of HTTP could understand differently.
func checkShape(r *http.Request) *fault.Error {
	get := r.Method == http.MethodGet
	switch {
	case !get && r.Method != http.MethodPost:
		return fault.New(fault.UnknownMethod, "")
	case strings.ContainsAny(r.RequestURI, "%\\;") || strings.Contains(r.URL.Path, "//"):
		// Names need no escaping, so an escape is a disguise.
		return fault.New(fault.MalformedRequest, "the path holds an escape or an empty segment")
	case !get && (r.URL.RawQuery != "" || r.URL.ForceQuery):
		return fault.New(fault.MalformedRequest, "the request has a query")
	case r.Header.Get("Content-Encoding") != "":
		return fault.New(fault.UnsupportedMediaType, "the body must not be encoded")
	case get:
		return nil
	}
	values := r.Header.Values("Content-Type")
	if len(values) != 1 {
		return fault.New(fault.UnsupportedMediaType, "")
	}
	if values[0] == "application/json" {
		return nil
	}
	kind, params, err := mime.ParseMediaType(values[0])
	charset, hasCharset := params["charset"]
	if err != nil || kind != "application/json" || len(params) > 1 ||
		len(params) == 1 && (!hasCharset || !strings.EqualFold(charset, "utf-8")) {
		return fault.New(fault.UnsupportedMediaType, "")
	}
	return nil
}

func readBody(w http.ResponseWriter, r *http.Request, limit int) ([]byte, *fault.Error) {
	if r.Method == http.MethodGet {
		return nil, nil
	}
	if r.ContentLength > int64(limit) {
		return nil, fault.New(fault.RequestTooLarge, "")
	}
	reader := http.MaxBytesReader(w, r.Body, int64(limit))
	var body []byte
	var err error
	if r.ContentLength > 0 {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(reader, body)
	} else {
		body, err = io.ReadAll(reader)
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, fault.New(fault.RequestTooLarge, "")
	case err != nil:
		return nil, fault.Wrap(fault.MalformedRequest, "the body ended early", err)
	}
	return body, nil
}
