package fault_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc/status"

	"github.com/sallyport/sallyport/gateway/fault"
	faultv1 "github.com/sallyport/sallyport/proto/sallyport/fault/v1"
)

// Every reason goes through gRPC and through REST and comes back the same.
func TestReasonsRoundTrip(t *testing.T) {
	for v := range faultv1.Reason_name {
		if v == 0 {
			continue
		}
		r := fault.Reason(v)
		t.Run(r.String(), func(t *testing.T) {
			if r.HTTPStatus() < 400 || r.Code() == 0 || fault.New(r, "").Message() == "" {
				t.Fatal("the reason has no row in the table")
			}
			want := fault.New(r, "more").WithRequestID("id-1")

			got, ok := fault.FromStatus(status.Convert(want))
			if !ok || got.Reason != r || got.Message() != "more" || got.RequestID() != "id-1" {
				t.Errorf("through gRPC: %v, %v", got, ok)
			}

			w := httptest.NewRecorder()
			fault.WriteProblem(w, want)
			var p fault.Problem
			if err := json.NewDecoder(w.Body).Decode(&p); err != nil {
				t.Fatal(err)
			}
			got, ok = p.Error()
			if !ok || got.Reason != r || got.Message() != "more" || got.RequestID() != "id-1" || w.Code != r.HTTPStatus() {
				t.Errorf("through REST: %v, %v", got, ok)
			}
		})
	}
}

func TestUnknownErrorsBecomeInternalWithoutDetail(t *testing.T) {
	err := fault.From(io.ErrUnexpectedEOF)
	if err.Reason != fault.Internal || strings.Contains(err.Message(), "EOF") {
		t.Errorf("got %v with message %q", err.Reason, err.Message())
	}
	if s := status.Convert(err); strings.Contains(s.Message(), "EOF") {
		t.Errorf("the cause crossed the border: %v", s)
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error("the cause is lost to our own log")
	}
}
