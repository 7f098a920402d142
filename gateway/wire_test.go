package gateway_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sallyport/sallyport/gateway/development"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
)

// patience bounds everything that a test waits for.
const patience = 30 * time.Second

// question is a call of the data plane in a form that can be put on the wire of
// both protocols, and spoiled there.
type question struct {
	method  string // such as Encrypt
	keyring string
	field   string // of the payload; the method's own if empty
	payload []byte
	context []pair // in order; a name may occur twice

	// Spoilers of the encoded message, of the JSON body, and of the HTTP request.
	grpc func(message []byte) []byte
	json func(body []byte) []byte
	http func(*http.Request)
}

type pair struct{ name, value string }

func encrypt(plaintext string, context ...pair) question {
	return question{method: "Encrypt", keyring: development.DemoKeyring, payload: []byte(plaintext), context: context}
}

func decrypt(envelope []byte, context ...pair) question {
	return question{method: "Decrypt", keyring: development.DemoKeyring, payload: envelope, context: context}
}

// in asks the same of another keyring.
func (q question) in(keyring string) question {
	q.keyring = keyring
	return q
}

// message is the question as a protobuf message, written by hand so that nothing
// tidies it up on the way.
func (q question) message() []byte {
	m := protowire.AppendTag(nil, 1, protowire.BytesType)
	m = protowire.AppendString(m, q.keyring)
	if len(q.payload) > 0 {
		m = protowire.AppendTag(m, 2, protowire.BytesType)
		m = protowire.AppendBytes(m, q.payload)
	}
	for _, p := range q.context {
		e := protowire.AppendTag(nil, 1, protowire.BytesType)
		e = protowire.AppendString(e, p.name)
		e = protowire.AppendTag(e, 2, protowire.BytesType)
		e = protowire.AppendString(e, p.value)
		m = protowire.AppendTag(m, 3, protowire.BytesType)
		m = protowire.AppendBytes(m, e)
	}
	if q.grpc != nil {
		m = q.grpc(m)
	}
	return m
}

// body is the question as JSON. Strings go out byte by byte, without escapes.
func (q question) body() []byte {
	field := map[string]string{"Encrypt": "plaintext", "Decrypt": "ciphertext", "Rewrap": "ciphertext", "ComputeMac": "data"}[q.method]
	if q.field != "" {
		field = q.field
	}
	var b bytes.Buffer
	b.WriteString(`{"` + field + `":"` + base64.StdEncoding.EncodeToString(q.payload) + `","context":{`)
	for i, p := range q.context {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"` + p.name + `":"` + p.value + `"`)
	}
	b.WriteString(`}}`)
	if q.json != nil {
		return q.json(b.Bytes())
	}
	return b.Bytes()
}

// answer is what came back, in one form for both protocols.
type answer struct {
	reason  fault.Reason // admitted if there was no error
	message string       // of the error, without the request id
	untyped error        // an error that gives no reason of ours
	receipt string
	payload []byte // ciphertext or plaintext
	raw     []byte // REST: the body of the reply
}

// asker asks over one connection, as one caller.
type asker func(t *testing.T, q question) answer

// doors are both ways in for a caller. Each has a connection of its own, which is
// kept for as long as the test.
func doors(t *testing.T, gw *gatewaytest.Gateway, p development.Pair) map[string]asker {
	t.Helper()
	return map[string]asker{"gRPC": overGRPC(t, gw, p), "REST": overREST(t, gw, p)}
}

// raw is a codec that sends and gives bytes as they are.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func overGRPC(t *testing.T, gw *gatewaytest.Gateway, p development.Pair) asker {
	t.Helper()
	conn := dial(t, gw, gw.Endpoints.GRPC, p)
	return func(t *testing.T, q question) answer {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		var reply []byte
		var trailer metadata.MD
		err := conn.Invoke(ctx, "/sallyport.data.v1.DataService/"+q.method, q.message(), &reply,
			grpc.ForceCodecV2(raw{}), grpc.Trailer(&trailer))
		a := answerOf(err)
		if r := trailer.Get("sallyport-receipt"); len(r) > 0 {
			a.receipt = r[0]
		}
		if len(reply) > 0 {
			_, _, n := protowire.ConsumeTag(reply)
			a.payload, _ = protowire.ConsumeBytes(reply[max(n, 0):])
		}
		return a
	}
}

// dial connects over gRPC until the test ends.
func dial(t *testing.T, gw *gatewaytest.Gateway, address string, p development.Pair) *grpc.ClientConn {
	t.Helper()
	conn, err := development.Dial(address, gw.Endpoints.CA, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// answerOf gives the reason of a gRPC error.
func answerOf(err error) answer {
	if err == nil {
		return answer{}
	}
	f, ok := fault.FromStatus(status.Convert(err))
	if !ok {
		return answer{untyped: err}
	}
	return answer{reason: f.Reason, message: f.Message()}
}

func overREST(t *testing.T, gw *gatewaytest.Gateway, p development.Pair) asker {
	t.Helper()
	client := browser(t, gw, p)
	return func(t *testing.T, q question) answer {
		t.Helper()
		url := "https://" + gw.Endpoints.REST + "/v1/" + q.keyring + ":" + strings.ToLower(q.method[:1]) + q.method[1:]
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(q.body()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if q.http != nil {
			q.http(req)
		}
		return send(t, client, req)
	}
}

// browser is an HTTP client with a certificate.
func browser(t *testing.T, gw *gatewaytest.Gateway, p development.Pair) *http.Client {
	t.Helper()
	config, err := development.ClientTLS(gw.Endpoints.CA, p)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

func send(t *testing.T, client *http.Client, req *http.Request) answer {
	t.Helper()
	resp, err := client.Do(req)
	if err != nil {
		return answer{untyped: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{untyped: err}
	}
	a := answer{receipt: resp.Header.Get("Sallyport-Receipt"), raw: body}
	if resp.StatusCode == http.StatusOK {
		var reply struct{ Ciphertext, Plaintext, Mac []byte }
		_ = json.Unmarshal(body, &reply)
		a.payload = bytes.Join([][]byte{reply.Ciphertext, reply.Plaintext, reply.Mac}, nil)
		return a
	}
	var problem fault.Problem
	if err := json.Unmarshal(body, &problem); err != nil {
		a.untyped = errors.New(resp.Status + ": " + string(body))
		return a
	}
	f, ok := problem.Error()
	if !ok || f.Reason.HTTPStatus() != resp.StatusCode || resp.Header.Get("Content-Type") != "application/problem+json" {
		a.untyped = errors.New(resp.Status + ": " + string(body))
		return a
	}
	a.reason, a.message = f.Reason, f.Message()
	return a
}

// must asks what has to succeed, and gives what came of it.
func (ask asker) must(t *testing.T, q question) []byte {
	t.Helper()
	a := ask(t, q)
	if a.untyped != nil || a.reason != admitted {
		t.Fatalf("%s: %v %v", q.method, a.reason, a.untyped)
	}
	return a.payload
}

// refused asks what has to be refused.
func (ask asker) refused(t *testing.T, q question, want fault.Reason) answer {
	t.Helper()
	a := ask(t, q)
	if a.untyped != nil || a.reason != want {
		t.Errorf("got %v %v, want %v", a.reason, a.untyped, want)
	}
	return a
}

// fingerprint is the SHA-256 of a pair's certificate.
func fingerprint(t *testing.T, p development.Pair) string {
	t.Helper()
	data, err := os.ReadFile(p.Cert)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:])
}

// get asks the operations listener.
func get(t *testing.T, gw *gatewaytest.Gateway, path string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+gw.Endpoints.Ops+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Timeout: patience}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// metric reads a metric that has no labels.
func metric(t *testing.T, gw *gatewaytest.Gateway, name string) float64 {
	t.Helper()
	_, body := get(t, gw, "/metrics")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// eventually waits until the condition holds, and fails the test if it does not in
// time.
func eventually(t *testing.T, within time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}
