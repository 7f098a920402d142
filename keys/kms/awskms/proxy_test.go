package awskms

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// fault is what the proxy does with one request.
type fault func(w http.ResponseWriter, r *http.Request, forward http.Handler)

// pass forwards the request.
func pass(w http.ResponseWriter, r *http.Request, forward http.Handler) { forward.ServeHTTP(w, r) }

// answer gives a KMS error instead of forwarding.
func answer(status int, code string) fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"__type":%q,"message":"User: arn:aws:iam::1:user/hidden may not"}`, code)
	}
}

// lost cuts the connection before the request reaches KMS.
func lost(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }

// doneButLost forwards the request and cuts the connection before the answer.
func doneButLost(_ http.ResponseWriter, r *http.Request, forward http.Handler) {
	forward.ServeHTTP(httptest.NewRecorder(), r)
	panic(http.ErrAbortHandler)
}

// hang never answers.
func hang(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
	_, _ = io.Copy(io.Discard, r.Body) // else the server does not notice that the client went
	<-r.Context().Done()
}

// enforceState forwards only if the key is enabled. Moto keeps a key's state but
// uses a disabled key all the same; the answers are those that the AWS KMS Developer
// Guide gives under "Key states of AWS KMS keys".
func enforceState(keyARN string) fault {
	return func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		out, err := admin().DescribeKey(r.Context(), &kms.DescribeKeyInput{KeyId: &keyARN})
		switch {
		case err != nil:
			w.WriteHeader(http.StatusBadGateway)
		case out.KeyMetadata.KeyState == types.KeyStateDisabled:
			answer(400, "DisabledException")(w, r, forward)
		case out.KeyMetadata.KeyState != types.KeyStateEnabled:
			answer(400, "KMSInvalidStateException")(w, r, forward)
		default:
			forward.ServeHTTP(w, r)
		}
	}
}

// reply answers with fixed bytes.
func reply(status int, body string) fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// proxy stands in front of moto and injects one fault per request, then passes.
type proxy struct {
	*httptest.Server
	requests atomic.Int64
	mu       sync.Mutex
	faults   []fault
	always   fault
}

func newProxy(t *testing.T, always fault, first ...fault) *proxy {
	t.Helper()
	target, err := url.Parse(motoURL)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(target)
	p := &proxy{always: always, faults: first}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.requests.Add(1)
		p.mu.Lock()
		act := p.always
		if len(p.faults) > 0 {
			act, p.faults = p.faults[0], p.faults[1:]
		}
		p.mu.Unlock()
		act(w, r, forward)
	}))
	t.Cleanup(p.Close)
	return p
}
