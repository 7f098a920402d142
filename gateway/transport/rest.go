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
	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/pipeline"
	"github.com/sallyport/sallyport/proto/openapi"
	optionsv1 "github.com/sallyport/sallyport/proto/sallyport/options/v1"
)

// ReceiptHeader is the REST response header that carries a call's receipt.
const ReceiptHeader = "Sallyport-Receipt"

// exchange is one REST request and its reply, from the listener to the road.
type exchange struct {
	evidence *authn.Evidence
	header   http.Header // of the reply
	// malformed is why the body was refused. grpc-gateway carries decoding errors as
	// text, so the decoder leaves the reason here.
	malformed *fault.Error
	// used are the messages to be wiped when the reply is written.
	used []proto.Message
}

type exchangeKey struct{}

// inProcess is the connection that grpc-gateway's generated clients call through.
// It takes each call down the same road as gRPC, with the evidence of the REST
// caller's own connection.
type inProcess struct {
	pipeline *pipeline.Pipeline
	routes   map[string]*pipeline.Route
}

func newInProcess(p *pipeline.Pipeline, routes []pipeline.Route) inProcess {
	c := inProcess{p, map[string]*pipeline.Route{}}
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

// NewStream implements grpc.ClientConnInterface. No method streams.
func (inProcess) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, fault.New(fault.UnknownMethod, "")
}

// rest serves REST: it checks the shape of a request, and hands it to grpc-gateway
// with its body read and bounded.
type rest struct {
	mux    *runtime.ServeMux
	plane  optionsv1.Plane
	limits Limits
}

// register is the form of the generated RegisterXServiceHandlerClient functions
// once a client is made.
type register func(context.Context, *runtime.ServeMux, grpc.ClientConnInterface) error

func newREST(p *pipeline.Pipeline, routes []pipeline.Route, plane optionsv1.Plane, services []register, l Limits) (*rest, error) {
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
	conn := newInProcess(p, routes)
	for _, r := range services {
		if err := r(context.Background(), mux, conn); err != nil {
			return nil, err
		}
	}
	return &rest{mux, plane, l}, nil
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
	if f := s.checkShape(r); f != nil {
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
	x := &exchange{evidence: conn.evidenceFrom(r.TLS), header: h}
	r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	r.Body = &jsonBody{Reader: bytes.NewReader(body), bytes: body, exchange: x}
	s.mux.ServeHTTP(wipingWriter{w}, r)
	for _, m := range x.used {
		pipeline.WipePlaintext(m)
	}
}

// wipingWriter wipes what it has written: replies come from grpc-gateway, which
// leaves its buffer to the garbage collector.
type wipingWriter struct{ http.ResponseWriter }

// Write implements io.Writer, but for keeping what it is given.
func (w wipingWriter) Write(p []byte) (int, error) {
	defer clear(p)
	return w.ResponseWriter.Write(p)
}

// checkShape refuses what two readers of HTTP could understand differently.
func (s *rest) checkShape(r *http.Request) *fault.Error {
	get := s.plane == optionsv1.Plane_PLANE_CONTROL && r.Method == http.MethodGet
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
