package gateway_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
)

// canary is a text that occurs nowhere by chance.
type canary string

func newCanary() canary { return canary("canary-" + rand.Text()) }

// forms are what a leak of it could look like.
func (c canary) forms() map[string][]byte {
	forms := map[string][]byte{
		"as it is": []byte(c), "in hex": []byte(hex.EncodeToString([]byte(c))),
		"in upper hex": bytes.ToUpper([]byte(hex.EncodeToString([]byte(c)))),
	}
	// Base64 of a text that begins anywhere in a group of three, without the letters
	// that depend on what is around it.
	for shift := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + string(c)))
		forms["in base64 "+string(rune('0'+shift))] = []byte(encoded[4 : len(encoded)-4])
		url := base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + string(c)))
		forms["in base64url "+string(rune('0'+shift))] = []byte(url[4 : len(url)-4])
	}
	return forms
}

// absent checks that the canary is in no form in what is known as name.
func (c canary) absent(t *testing.T, name string, in []byte) {
	t.Helper()
	for form, text := range c.forms() {
		if bytes.Contains(in, text) {
			t.Errorf("the canary is in %s, %s", name, form)
		}
	}
}

// output is a log that a test reads.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.buf.Bytes())
}

// Plaintext and context values are nowhere but in the replies: not in the log at
// its most talkative, not in the audit trail, not in the store, not in metrics.
func TestPlaintextStaysNowhere(t *testing.T) {
	t.Parallel()
	plain, value, log := newCanary(), newCanary(), &output{}
	gw := gatewaytest.Start(t, gatewaytest.WithLogger(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	context := pair{"record", string(value)}
	for protocol, ask := range doors(t, gw, gw.Endpoints.Workload) {
		sealed := ask.must(t, encrypt(string(plain), context))
		plain.absent(t, "the envelope over "+protocol, sealed)
		value.absent(t, "the envelope over "+protocol, sealed)
		if got := ask.must(t, decrypt(sealed, context)); string(got) != string(plain) {
			t.Fatalf("%s: decrypted to %q", protocol, got)
		}
		ask.refused(t, decrypt(sealed, pair{"record", "other"}), fault.DecryptionFailed)
		ask.refused(t, encrypt(string(plain), context).in("tenants/demo/keyrings/none"), fault.PermissionDenied)
	}
	_, metrics := get(t, gw, "/metrics")
	places := map[string][]byte{"the metrics": []byte(metrics)}
	collect(t, gw.Dir, places) // with the WAL of the store
	if err := gw.Stop(); err != nil {
		t.Fatal(err)
	}
	places["the log"] = log.bytes()
	collect(t, gw.Dir, places) // as a clean stop leaves it
	if len(places) < 10 {
		t.Fatalf("only %d places searched", len(places))
	}
	for name, content := range places {
		plain.absent(t, name, content)
		value.absent(t, name, content)
	}
}

// collect adds every file below a directory.
func collect(t *testing.T, dir string, places map[string][]byte) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		places[path] = append(places[path], data...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Errors say what is wrong, never with what: whatever is sent, in any field and of
// any form, comes back in no error and stands in no log (X14).
func TestErrorsDoNotEcho(t *testing.T) {
	t.Parallel()
	log := &output{}
	gw := gatewaytest.Start(t, gatewaytest.WithLogger(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	c := newCanary()
	text := string(c)
	body := func(b string) question {
		q := encrypt("x")
		q.json = func([]byte) []byte { return []byte(b) }
		q.grpc = func(m []byte) []byte { return append(m, b...) }
		return q
	}
	header := encrypt("x")
	header.http = func(r *http.Request) { r.Header.Set("Content-Type", "text/"+text) }
	questions := []question{
		body(`{"plaintext":"` + text + `!"}`), body(`{"plaintext":` + text + `}`), body(`{"` + text + `":1}`),
		body(`{"format":"` + text + `"}`), body(`{"plaintext":"","plaintext":"` + text + `"}`), body(text),
		body(`{"context":{"` + text + `":1}}`), body(`{"context":"` + text + `"}`),
		encrypt("x", pair{strings.Repeat(text, 5), "x"}), encrypt("x", pair{"x", strings.Repeat(text, 50)}),
		encrypt("x", pair{text, "x"}, pair{text, "y"}), encrypt("x").in("tenants/" + text + "/keyrings/default"),
		encrypt("x").in("tenants/demo/keyrings/" + text), encrypt("x").in("tenants/demo/keyrings/" + text + "/x"),
		decrypt([]byte(text)), decrypt([]byte("\xf5SP\x01" + text)), header,
		{method: text, keyring: "tenants/demo/keyrings/default"},
	}
	for protocol, ask := range doors(t, gw, gw.Endpoints.Workload) {
		for i, q := range questions {
			a := ask(t, q)
			if a.reason == admitted && a.untyped == nil {
				if protocol == "REST" {
					t.Errorf("%s: question %d was answered", protocol, i)
				}
				continue
			}
			if a.untyped != nil {
				t.Errorf("%s: question %d: %v", protocol, i, a.untyped)
			}
			c.absent(t, protocol+": the error", []byte(a.message+string(a.raw)))
		}
	}
	if err := gw.Stop(); err != nil {
		t.Fatal(err)
	}
	c.absent(t, "the log", log.bytes())
	for _, r := range records(t, gw) {
		c.absent(t, "a record", []byte(r.String()))
	}
}
