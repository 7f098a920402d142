package sallyport_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/gateway/fault"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
	faultv1 "github.com/sallyport/sallyport/proto/sallyport/fault/v1"
)

// constants lists the reasons that the package knows.
var constants = []sallyport.Reason{
	sallyport.MalformedRequest, sallyport.RequestTooLarge, sallyport.UnsupportedMediaType, sallyport.InvalidArgument,
	sallyport.InvalidContext, sallyport.UnknownMethod, sallyport.CertificateExpired, sallyport.CertificateNotYetValid,
	sallyport.CertificateUntrusted, sallyport.CertificateRevoked, sallyport.NotAnSVID, sallyport.ForeignTrustDomain,
	sallyport.WorkloadNotRegistered, sallyport.WorkloadDisabled, sallyport.HumanOnDataPlane, sallyport.CallerKindRefused,
	sallyport.PermissionDenied, sallyport.PurposeMismatch, sallyport.VersionUnavailable, sallyport.KEKUnreachable,
	sallyport.KEKRefused, sallyport.KEKThrottled, sallyport.ForeignEnvelope, sallyport.UnknownVersion,
	sallyport.MalformedEnvelope, sallyport.UnknownSuite, sallyport.DecryptionFailed, sallyport.NotFound,
	sallyport.AlreadyExists, sallyport.Conflict, sallyport.FailedPrecondition, sallyport.InvalidPolicy,
	sallyport.LeaseGone, sallyport.LeaseNotRenewable, sallyport.LifetimeExceeded, sallyport.QuotaExceeded,
	sallyport.InvalidRecipient, sallyport.SourceUnavailable, sallyport.SourceSealed, sallyport.SourceStandby,
	sallyport.SourceThrottled, sallyport.SourceUntrusted, sallyport.SourceRefused, sallyport.SourceMalformed,
	sallyport.AuditUnavailable, sallyport.StoreUnavailable, sallyport.Overloaded, sallyport.DeadlineExceeded,
	sallyport.Cancelled, sallyport.ShuttingDown, sallyport.Internal,
}

// Every reason of the proto has a constant, and comes back from the gateway's own
// error as that constant, with message and request id.
func TestEveryReasonRoundTrips(t *testing.T) {
	known := map[sallyport.Reason]bool{}
	for _, r := range constants {
		known[r] = true
	}
	var sent *fault.Error
	f := &fake{encrypt: func(context.Context, int, *datav1.EncryptRequest) (*datav1.EncryptResponse, error) { return nil, sent }}
	a := newAuthority(t)
	c := dial(t, f.serve(a), a.files(t.TempDir(), a.issue("spiffe://test.example/app")),
		func(o *sallyport.Options) { o.Attempts = 1 })
	for v := range faultv1.Reason_name {
		if v == 0 {
			continue
		}
		sent = fault.New(fault.Reason(v), "more").WithRequestID("id-1")
		want := sallyport.Reason(fault.Reason(v).String())
		if !known[want] {
			t.Errorf("%s has no constant", want)
		}
		_, err := c.Keyring(ring).Encrypt(t.Context(), []byte("p"), nil)
		var e *sallyport.Error
		if !errors.Is(err, want) || !errors.As(err, &e) {
			t.Fatalf("%s came back as %v", want, err)
		}
		if e.Message != "more" || e.RequestID != "id-1" || e.Receipt == "" {
			t.Errorf("%s lost something: %+v", want, e)
		}
		if errors.Is(err, sallyport.Unavailable) {
			t.Errorf("%s passes for UNAVAILABLE", want)
		}
		if status.Code(err) != fault.Reason(v).Code() {
			t.Errorf("%s lost its status code: %s", want, status.Code(err))
		}
	}
	if len(known) != len(faultv1.Reason_name)-1 {
		t.Errorf("%d constants for %d reasons", len(known), len(faultv1.Reason_name)-1)
	}
}

// What gRPC says without the gateway has a reason too.
func TestBareStatusesHaveReasons(t *testing.T) {
	for code, want := range map[codes.Code]sallyport.Reason{
		codes.Unavailable: sallyport.Unavailable, codes.DeadlineExceeded: sallyport.DeadlineExceeded,
		codes.Canceled: sallyport.Cancelled, codes.ResourceExhausted: sallyport.RequestTooLarge,
		codes.Unimplemented: sallyport.UnknownMethod, codes.Internal: sallyport.Internal, codes.Unknown: sallyport.Internal,
	} {
		f := &fake{encrypt: func(context.Context, int, *datav1.EncryptRequest) (*datav1.EncryptResponse, error) {
			return nil, status.Error(code, "bare")
		}}
		a := newAuthority(t)
		c := dial(t, f.serve(a), a.files(t.TempDir(), a.issue("spiffe://test.example/app")),
			func(o *sallyport.Options) { o.Attempts = 1 })
		if _, err := c.Keyring(ring).Encrypt(t.Context(), nil, nil); !errors.Is(err, want) {
			t.Errorf("%s became %v", code, err)
		}
	}
}

func TestMessageFarBeyondTheLimit(t *testing.T) {
	f := &fake{encrypt: succeed}
	a := newAuthority(t)
	c := dial(t, f.serve(a, grpc.MaxRecvMsgSize(1000)), a.files(t.TempDir(), a.issue("spiffe://test.example/app")))
	_, err := c.Keyring(ring).Encrypt(t.Context(), make([]byte, 2000), nil)
	if !errors.Is(err, sallyport.RequestTooLarge) || f.attempts != 0 {
		t.Errorf("%v, %d attempts reached the service", err, f.attempts)
	}
}

func TestNobodyThere(t *testing.T) {
	a := newAuthority(t)
	c := dial(t, "127.0.0.1:1", a.files(t.TempDir(), a.issue("spiffe://test.example/app")))
	if _, err := c.Keyring(ring).Encrypt(t.Context(), nil, nil); !errors.Is(err, sallyport.Unavailable) {
		t.Error(err)
	}
}

// A gateway that another authority vouches for is not spoken to.
func TestForeignGateway(t *testing.T) {
	f := &fake{encrypt: succeed}
	a, other := newAuthority(t), newAuthority(t)
	c := dial(t, f.serve(other), a.files(t.TempDir(), a.issue("spiffe://test.example/app")))
	if _, err := c.Keyring(ring).Encrypt(t.Context(), nil, nil); !errors.Is(err, sallyport.Unavailable) || f.attempts != 0 {
		t.Error(err)
	}

	files := other.files(t.TempDir(), other.issue("spiffe://test.example/app"))
	files.ServerName = "another.example"
	c = dial(t, f.serve(other), files)
	if _, err := c.Keyring(ring).Encrypt(t.Context(), nil, nil); !errors.Is(err, sallyport.Unavailable) || f.attempts != 0 {
		t.Error(err)
	}
}

func TestDeadlines(t *testing.T) {
	f := &fake{encrypt: func(ctx context.Context, _ int, _ *datav1.EncryptRequest) (*datav1.EncryptResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	a := newAuthority(t)
	c := dial(t, f.serve(a), a.files(t.TempDir(), a.issue("spiffe://test.example/app")),
		func(o *sallyport.Options) { o.Timeout = 50 * time.Millisecond })
	_, err := c.Keyring(ring).Encrypt(context.Background(), nil, nil)
	if !errors.Is(err, sallyport.DeadlineExceeded) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the client's own deadline: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Keyring(ring).Encrypt(ctx, nil, nil)
	if !errors.Is(err, sallyport.Cancelled) || !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled context: %v", err)
	}
}
