package gateway_test

import (
	"bytes"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/gateway/development"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// bad is a row of the table: a question, asked over gRPC and REST, and the one
// reason that it is refused with over both.
type bad struct {
	name string
	question
	want fault.Reason
	as   string // the caller, by name; the demo workload if empty
	only string // gRPC or REST, where the other protocol cannot say such a thing
	// opens: that the question is bad shows only when the key is open.
	opens bool
}

const limit = 64 << 10 // bytes of a request

// requestID matches the only part of an error that differs from call to call.
var requestID = regexp.MustCompile(`"requestId":"[0-9a-f]{32}"`)

var here = pair{"record", "17"} // the context of every envelope below

// Every bad question has its reason, the same over both protocols, and none of
// them reaches the KMS. The gateway that is asked has opened no key before, except
// for the questions that only an open key can judge.
func TestBadInput(t *testing.T) {
	t.Parallel()
	w := newBadWorld(t)
	ask := map[string]map[string]asker{}
	for name, p := range w.callers {
		ask[name] = doors(t, w.gw, p)
	}
	run := func(rows []bad, opens bool) {
		for _, row := range rows {
			for protocol := range ask[""] {
				if row.opens != opens || row.only != "" && row.only != protocol {
					continue
				}
				t.Run(row.name+"/"+protocol, func(t *testing.T) {
					before := metric(t, w.gw, kmsCalls)
					ask[row.as][protocol].refused(t, row.question, row.want)
					if now := metric(t, w.gw, kmsCalls); now != before {
						t.Errorf("%v calls of the KMS", now-before)
					}
				})
			}
		}
	}
	rows := w.rows()
	run(rows, false)
	ask[""]["gRPC"].must(t, decrypt(w.good, here))
	run(rows, true)
	for protocol, a := range ask[""] { // none of that hurt anybody
		if got := a.must(t, decrypt(w.good, here)); string(got) != "attack at dawn" {
			t.Errorf("%s: decrypted to %q", protocol, got)
		}
	}
}

const kmsCalls = "sallyport_kms_calls_total"

// badWorld is a gateway with more to confuse than the demo has: keyrings of other
// purposes and of another tenant, envelopes of each, callers of every wrong kind.
type badWorld struct {
	gw      *gatewaytest.Gateway
	callers map[string]development.Pair

	good, elsewhere, neighbours, disabled []byte
}

const (
	otherKeyring   = "tenants/demo/keyrings/other"
	macKeyring     = "tenants/demo/keyrings/tags"
	retiredKeyring = "tenants/demo/keyrings/retired"
	foreignKeyring = "tenants/neighbour/keyrings/default"
	neighbour      = "spiffe://" + development.TrustDomain + "/neighbour"
	neighbourRule  = `@id("neighbour") permit (principal == Sallyport::Workload::"` + neighbour +
		`", action, resource in Sallyport::Tenant::"tenants/neighbour");`
)

func newBadWorld(t *testing.T) *badWorld {
	t.Helper()
	w := &badWorld{}
	small := gatewaytest.WithConfig(func(c *config.Config) { c.Limits.MaxRequestBytes = limit })
	first := gatewaytest.Start(t, small)
	w.keyrings(t, first)
	ask := overGRPC(t, first, first.Endpoints.Workload)
	w.good = ask.must(t, encrypt("attack at dawn", here))
	w.elsewhere = ask.must(t, encrypt("attack at dawn", here).in(otherKeyring))
	w.disabled = ask.must(t, encrypt("attack at dawn", here).in(retiredKeyring))
	w.neighbours = overGRPC(t, first, first.Register("neighbour", neighbour, false)).
		must(t, encrypt("attack at dawn", here).in(foreignKeyring))
	retire(t, first)
	callers := matrixCallers(t, first)
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	w.gw = gatewaytest.Start(t, small, gatewaytest.WithDir(first.Dir))
	w.callers = callers
	w.callers[""] = w.gw.Endpoints.Workload
	return w
}

func (w *badWorld) keyrings(t *testing.T, gw *gatewaytest.Gateway) {
	t.Helper()
	conn := gw.Dial(gw.Endpoints.Control, gw.Endpoints.Operator)
	keyrings := controlv1.NewKeyringServiceClient(conn)
	if _, err := keyrings.CreateTenant(t.Context(), &controlv1.CreateTenantRequest{TenantId: "neighbour"}); err != nil {
		t.Fatal(err)
	}
	for name, purpose := range map[string]controlv1.Purpose{
		otherKeyring: controlv1.Purpose_PURPOSE_AEAD, retiredKeyring: controlv1.Purpose_PURPOSE_AEAD,
		macKeyring: controlv1.Purpose_PURPOSE_MAC, foreignKeyring: controlv1.Purpose_PURPOSE_AEAD,
	} {
		parent, id, _ := strings.Cut(name, "/keyrings/")
		_, err := keyrings.CreateKeyring(t.Context(), &controlv1.CreateKeyringRequest{Parent: parent, KeyringId: id, Purpose: purpose})
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := controlv1.NewPolicyServiceClient(conn).LoadPolicy(t.Context(), &controlv1.LoadPolicyRequest{Files: []*controlv1.PolicyFile{
		{Name: "development.cedar", Content: development.Policy}, {Name: "neighbour.cedar", Content: neighbourRule},
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// retire disables version 1 of the retired keyring.
func retire(t *testing.T, gw *gatewaytest.Gateway) {
	t.Helper()
	keyrings := controlv1.NewKeyringServiceClient(gw.Dial(gw.Endpoints.Control, gw.Endpoints.Operator))
	if _, err := keyrings.RotateKeyring(t.Context(), &controlv1.RotateKeyringRequest{Name: retiredKeyring}); err != nil {
		t.Fatal(err)
	}
	_, err := keyrings.SetVersionState(t.Context(), &controlv1.SetVersionStateRequest{
		Name: retiredKeyring, Version: 1, State: controlv1.VersionState_VERSION_STATE_DISABLED,
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (w *badWorld) rows() []bad {
	var rows []bad
	rows = append(rows, w.envelopes()...)
	rows = append(rows, w.contexts()...)
	rows = append(rows, w.names()...)
	rows = append(rows, w.callersRows()...)
	rows = append(rows, w.messages()...)
	return append(rows, w.requests()...)
}

// at returns a copy of an envelope with one byte replaced.
func at(envelope []byte, offset int, b byte) []byte {
	out := bytes.Clone(envelope)
	out[offset] = b
	return out
}

func (w *badWorld) envelopes() []bad {
	const suite, format, version = 4, 3, 27 // offsets that docs/formats/envelope.md draws
	return []bad{
		{name: "malformed envelope", question: decrypt([]byte("not an envelope"), here), want: fault.MalformedEnvelope},
		{name: "no envelope", question: decrypt(nil, here), want: fault.MalformedEnvelope},
		{name: "truncated in the header", question: decrypt(w.good[:40], here), want: fault.MalformedEnvelope},
		{name: "truncated by a byte", question: decrypt(w.good[:len(w.good)-1], here), want: fault.DecryptionFailed, opens: true},
		{name: "one bit flipped", question: decrypt(at(w.good, len(w.good)-1, w.good[len(w.good)-1]^1), here), want: fault.DecryptionFailed, opens: true},
		{name: "foreign envelope", question: decrypt(w.elsewhere, here), want: fault.ForeignEnvelope},
		{name: "another tenant's envelope", question: decrypt(w.neighbours, here), want: fault.ForeignEnvelope},
		{name: "unknown suite", question: decrypt(at(w.good, suite, 0x7f), here), want: fault.UnknownSuite},
		{name: "unknown format version", question: decrypt(at(w.good, format, 0x7f), here), want: fault.UnknownSuite},
		{name: "unknown key version", question: decrypt(at(w.good, version, 99), here), want: fault.UnknownVersion},
		{name: "disabled version", question: decrypt(w.disabled, here).in(retiredKeyring), want: fault.VersionUnavailable},
	}
}

func (w *badWorld) contexts() []bad {
	var many []pair
	for i := range 17 {
		many = append(many, pair{fmt.Sprintf("name%d", i), "x"})
	}
	var large []pair
	for i := range 5 {
		large = append(large, pair{fmt.Sprintf("name%d", i), strings.Repeat("x", 1000)})
	}
	return []bad{
		{name: "context missing", question: decrypt(w.good), want: fault.DecryptionFailed, opens: true},
		{name: "context different", question: decrypt(w.good, pair{"record", "18"}), want: fault.DecryptionFailed, opens: true},
		{name: "context with one more pair", question: decrypt(w.good, here, pair{"x", "y"}), want: fault.DecryptionFailed, opens: true},
		{name: "context with too many pairs", question: encrypt("x", many...), want: fault.InvalidContext},
		{name: "context too large", question: encrypt("x", large...), want: fault.InvalidContext},
		{name: "context value too large", question: encrypt("x", pair{"record", strings.Repeat("x", 1025)}), want: fault.InvalidContext},
		{name: "context name too large", question: encrypt("x", pair{strings.Repeat("x", 65), ""}), want: fault.InvalidContext},
		{name: "context name empty", question: encrypt("x", pair{"", "17"}), want: fault.InvalidContext},
		{name: "context name twice", question: encrypt("x", here, here), want: fault.MalformedRequest},
		{name: "context name twice, differently", question: encrypt("x", here, pair{"record", "18"}), want: fault.MalformedRequest},
		{name: "context value not UTF-8", question: encrypt("x", pair{"record", "\xff\xfe"}), want: fault.MalformedRequest},
		{name: "context name not UTF-8", question: encrypt("x", pair{"rec\xc0\x80ord", "17"}), want: fault.MalformedRequest},
	}
}

func (w *badWorld) names() []bad {
	mac := encrypt("x", here)
	mac.method = "ComputeMac"
	return []bad{
		{name: "unknown tenant", question: encrypt("x").in("tenants/nobody/keyrings/default"), want: fault.PermissionDenied},
		{name: "unknown keyring", question: encrypt("x").in("tenants/demo/keyrings/missing"), want: fault.PermissionDenied},
		{name: "forbidden keyring", question: encrypt("x").in(foreignKeyring), want: fault.PermissionDenied},
		{name: "purpose mismatch, encrypting", question: encrypt("x").in(macKeyring), want: fault.PurposeMismatch},
		{name: "purpose mismatch, decrypting", question: decrypt(w.good, here).in(macKeyring), want: fault.PurposeMismatch},
		{name: "purpose mismatch, authenticating", question: mac, want: fault.PurposeMismatch},
		{name: "name in upper case", question: encrypt("x").in("tenants/DEMO/keyrings/default"), want: fault.InvalidArgument},
		{name: "name with a look-alike letter", question: encrypt("x").in("tenants/demo/keyrings/default_"), want: fault.InvalidArgument},
		{name: "name too long", question: encrypt("x").in("tenants/demo/keyrings/" + strings.Repeat("x", 64)), want: fault.InvalidArgument},
	}
}

func (w *badWorld) callersRows() []bad {
	rows := map[string]fault.Reason{}
	for caller, planes := range matrix {
		if planes[onData] != admitted {
			rows[caller] = planes[onData]
		}
	}
	var out []bad
	for caller, want := range rows {
		out = append(out, bad{name: "caller " + caller, question: decrypt(w.good, here), as: caller, want: want})
	}
	return out
}

// messages are spoiled where both protocols can be spoiled in the same way.
func (w *badWorld) messages() []bad {
	spoiled := func(grpc, json func([]byte) []byte) question {
		q := encrypt("x", here)
		q.grpc, q.json = grpc, json
		return q
	}
	tail := func(b []byte) func([]byte) []byte {
		return func(m []byte) []byte { return append(m, b...) }
	}
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
	again := protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), "y")
	json := func(text string) func([]byte) []byte { return func([]byte) []byte { return []byte(text) } }
	unknownMethod := encrypt("x", here)
	unknownMethod.method = "Reveal"
	folded := encrypt("x", here)
	folded.method = "ENCRYPT"
	return []bad{
		{name: "larger than the limit", question: encrypt(strings.Repeat("x", limit+1)), want: fault.RequestTooLarge},
		{name: "unknown field", question: spoiled(tail(unknown), json(`{"plaintext":"eA==","reveal":1}`)), want: fault.MalformedRequest},
		{name: "field twice", question: spoiled(tail(again), json(`{"plaintext":"eA==","plaintext":"eQ=="}`)), want: fault.MalformedRequest},
		{name: "trailing garbage", question: spoiled(tail([]byte{0xff, 0xff}), tail([]byte("x"))), want: fault.MalformedRequest},
		{name: "unknown format", question: spoiled(tail([]byte{0x20, 0x63}), json(`{"plaintext":"eA==","format":99}`)), want: fault.InvalidArgument},
		{name: "unknown method", question: unknownMethod, want: fault.UnknownMethod},
		{name: "method in another case", question: folded, only: "gRPC", want: fault.UnknownMethod},
	}
}

// requests are bad as one of the protocols alone can be.
func (w *badWorld) requests() []bad {
	rest := func(name string, want fault.Reason, change func(*http.Request)) bad {
		q := encrypt("x", here)
		q.http = change
		return bad{name: name, question: q, only: "REST", want: want}
	}
	header := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
	}
	body := func(name, text string) bad {
		q := encrypt("x", here)
		q.json = func([]byte) []byte { return []byte(text) }
		return bad{name: name, question: q, only: "REST", want: fault.MalformedRequest}
	}
	verb := func(verb string) bad {
		return rest("verb "+verb, fault.UnknownMethod, func(r *http.Request) { r.Method = verb })
	}
	empty := encrypt("x", here)
	empty.grpc = func([]byte) []byte { return nil }
	const media = fault.UnsupportedMediaType
	return []bad{
		{name: "empty message", question: empty, only: "gRPC", want: fault.InvalidArgument},
		body("empty body", ""),
		body("body that is not JSON", "plaintext=eA%3D%3D"),
		body("body that is a list", `[]`),
		body("body that is null twice", `null null`),
		body("two documents", `{"plaintext":"eA=="}{"plaintext":"eA=="}`),
		body("key in another case", `{"Plaintext":"eA=="}`),
		body("key with a long s", `{"plaintext":"eA==","context":{},"ſecret":1}`),
		body("key twice by escape", `{"plaintext":"eA==","pl\u0061intext":"eQ=="}`),
		body("context twice", `{"plaintext":"eA==","context":{},"context":{"record":"17"}}`),
		body("context name twice by escape", `{"plaintext":"eA==","context":{"record":"17","recor\u0064":"18"}}`),
		body("context with half a surrogate", `{"plaintext":"eA==","context":{"record":"\ud800"}}`),
		body("body with the name of another", `{"name":"`+foreignKeyring+`","plaintext":"eA=="}`),
		body("body with the same name", `{"name":"`+development.DemoKeyring+`","plaintext":"eA=="}`),
		body("plaintext not base64", `{"plaintext":"***"}`),
		body("plaintext a number", `{"plaintext":4111111111111111}`),
		body("context value a number", `{"plaintext":"eA==","context":{"record":17}}`),
		rest("wrong content type", media, header("Content-Type", "text/plain")),
		rest("form", media, header("Content-Type", "application/x-www-form-urlencoded")),
		rest("multipart", media, header("Content-Type", "multipart/form-data; boundary=x")),
		rest("content type of gRPC", media, header("Content-Type", "application/grpc")),
		rest("foreign character set", media, header("Content-Type", "application/json; charset=utf-7")),
		rest("two content types", media, header("Content-Type", "application/json", "text/plain")),
		rest("no content type", media, header("Content-Type")),
		rest("gzip", media, header("Content-Encoding", "gzip")),
		rest("query", fault.MalformedRequest, func(r *http.Request) { r.URL.RawQuery = "name=" + foreignKeyring }),
		rest("empty query", fault.MalformedRequest, func(r *http.Request) { r.URL.ForceQuery = true }),
		verb(http.MethodGet), verb(http.MethodPut), verb(http.MethodDelete), verb(http.MethodPatch), verb(http.MethodHead + "S"),
	}
}

// What does not exist and what is forbidden are answered alike, to the byte, apart
// from the request id. The same holds for keyrings that exist elsewhere.
func TestUnknownIsAnsweredLikeForbidden(t *testing.T) {
	t.Parallel()
	w := newBadWorld(t)
	for protocol, ask := range doors(t, w.gw, w.gw.Endpoints.Workload) {
		var first string
		for _, keyring := range []string{foreignKeyring, "tenants/neighbour/keyrings/none", "tenants/nobody/keyrings/default", "tenants/demo/keyrings/none"} {
			a := ask.refused(t, encrypt("x").in(keyring), fault.PermissionDenied)
			seen := a.message + requestID.ReplaceAllString(string(a.raw), "")
			if first == "" {
				first = seen
			}
			if seen != first {
				t.Errorf("%s: %s is answered with %q, and the one before with %q", protocol, keyring, seen, first)
			}
		}
	}
}

// Far beyond the limit grpc-go cuts the message off by itself.
func TestMessageFarBeyondTheLimit(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t, gatewaytest.WithConfig(func(c *config.Config) { c.Limits.MaxRequestBytes = limit }))
	q := encrypt(strings.Repeat("x", 4*limit+1))
	if a := overGRPC(t, gw, gw.Endpoints.Workload)(t, q); status.Code(a.untyped) != codes.ResourceExhausted {
		t.Errorf("gRPC: %v %v", a.reason, a.untyped)
	}
	overREST(t, gw, gw.Endpoints.Workload).refused(t, q, fault.RequestTooLarge)
}

// A body that says nothing of its length is bounded all the same.
func TestBodyOfUnknownLength(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t, gatewaytest.WithConfig(func(c *config.Config) { c.Limits.MaxRequestBytes = limit }))
	ask := overREST(t, gw, gw.Endpoints.Workload)
	q := encrypt(strings.Repeat("x", limit))
	q.http = func(r *http.Request) { r.ContentLength = -1 }
	ask.refused(t, q, fault.RequestTooLarge)
	q.payload = []byte("x")
	ask.must(t, q)
}

// Refusing does not take longer than doing: a request that never ends is cut off.
func TestUnendingRequestIsCutOff(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t, gatewaytest.WithConfig(func(c *config.Config) { c.Limits.RequestTimeout = time.Second }))
	q := encrypt("x")
	q.http = func(r *http.Request) {
		r.ContentLength = 10
		r.Body = unending{t.Context().Done()}
	}
	if a := overREST(t, gw, gw.Endpoints.Workload)(t, q); a.untyped == nil && a.reason != fault.MalformedRequest {
		t.Errorf("got %v %v", a.reason, a.untyped)
	}
}

// unending is a body of which nothing comes.
type unending struct{ done <-chan struct{} }

func (u unending) Read([]byte) (int, error) { <-u.done; return 0, http.ErrBodyReadAfterClose }
func (unending) Close() error               { return nil }
