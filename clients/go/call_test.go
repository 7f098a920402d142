package sallyport_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/gateway/fault"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
)

// Failures are tried again until one attempt is answered; refusals are not.
func TestRetries(t *testing.T) {
	for _, test := range []struct {
		reason fault.Reason
		want   int // attempts
	}{
		{fault.AuditUnavailable, 3},
		{fault.StoreUnavailable, 3},
		{fault.KEKUnreachable, 3},
		{fault.KEKThrottled, 3},
		{fault.Overloaded, 3},
		{fault.ShuttingDown, 3},
		{fault.SourceUnavailable, 3},
		{fault.SourceSealed, 3},
		{fault.SourceStandby, 3},
		{fault.SourceThrottled, 3},
		{fault.SourceUntrusted, 1},
		{fault.QuotaExceeded, 1},
		{fault.HumanOnDataPlane, 1},
		{fault.PermissionDenied, 1},
		{fault.DecryptionFailed, 1},
		{fault.KEKRefused, 1},
		{fault.CertificateExpired, 1},
		{fault.Internal, 1},
		{fault.RequestTooLarge, 1},
		{fault.MalformedRequest, 1},
	} {
		f := &fake{encrypt: func(_ context.Context, n int, _ *datav1.EncryptRequest) (*datav1.EncryptResponse, error) {
			if n < 3 {
				return nil, fault.New(test.reason, "")
			}
			return &datav1.EncryptResponse{Version: 3}, nil
		}}
		a := newAuthority(t)
		c := dial(t, f.serve(a), a.files(t.TempDir(), a.issue("spiffe://test.example/app")))
		_, err := c.Keyring(ring).Encrypt(t.Context(), nil, nil)
		if f.attempts != test.want || (err == nil) != (test.want == 3) {
			t.Errorf("%s: %d attempts, %v", test.reason, f.attempts, err)
		}
	}
}

func TestRetriesAreBounded(t *testing.T) {
	f := &fake{encrypt: func(context.Context, int, *datav1.EncryptRequest) (*datav1.EncryptResponse, error) {
		return nil, fault.New(fault.Overloaded, "")
	}}
	a := newAuthority(t)
	files := a.files(t.TempDir(), a.issue("spiffe://test.example/app"))
	addr := f.serve(a)

	c := dial(t, addr, files, func(o *sallyport.Options) { o.Attempts = 2 })
	if _, err := c.Keyring(ring).Encrypt(t.Context(), nil, nil); !errors.Is(err, sallyport.Overloaded) || f.attempts != 2 {
		t.Errorf("by count: %d attempts, %v", f.attempts, err)
	}

	// The last answer is worth more than a deadline that nobody waited for.
	c = dial(t, addr, files, func(o *sallyport.Options) { o.Attempts = 1000 })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.Keyring(ring).Encrypt(ctx, nil, nil); !errors.Is(err, sallyport.Overloaded) && !errors.Is(err, sallyport.DeadlineExceeded) {
		t.Errorf("by deadline: %v", err)
	}
	if f.attempts > 100 {
		t.Errorf("%d attempts in 300 ms", f.attempts)
	}
}

// What changes something is never repeated by itself.
func TestControlIsNotRepeated(t *testing.T) {
	f := &fake{rotate: func() error { return fault.New(fault.StoreUnavailable, "") }}
	a := newAuthority(t)
	c, err := sallyport.DialControl(t.Context(), f.serve(a), sallyport.Options{
		Credentials: a.files(t.TempDir(), a.issue("spiffe://test.example/app")),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Keyrings.RotateKeyring(t.Context(), &controlv1.RotateKeyringRequest{Name: ring})
	if !errors.Is(err, sallyport.StoreUnavailable) || f.attempts != 1 {
		t.Errorf("%d attempts, %v", f.attempts, err)
	}
}

// Every attempt that is on record hands over its receipt; the result has the last.
func TestReceipts(t *testing.T) {
	f := &fake{encrypt: func(_ context.Context, n int, _ *datav1.EncryptRequest) (*datav1.EncryptResponse, error) {
		if n == 1 {
			return nil, fault.New(fault.KEKThrottled, "")
		}
		return &datav1.EncryptResponse{}, nil
	}}
	a := newAuthority(t)
	var got []string
	c := dial(t, f.serve(a), a.files(t.TempDir(), a.issue("spiffe://test.example/app")), func(o *sallyport.Options) {
		o.OnReceipt = func(_ context.Context, method, receipt string) { got = append(got, method+" "+receipt) }
	})
	sealed, err := c.Keyring(ring).Encrypt(t.Context(), nil, nil)
	if err != nil || sealed.Receipt != "receipt-2" {
		t.Errorf("%+v, %v", sealed, err)
	}
	const method = "/sallyport.data.v1.DataService/Encrypt "
	if want := []string{method + "receipt-1", method + "receipt-2"}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// Plaintext does not print, whatever the verb, and does not marshal.
func TestPlaintextDoesNotPrint(t *testing.T) {
	opened := sallyport.Opened{Plaintext: []byte("tell nobody")}
	for _, v := range []any{
		opened, &opened,
		sallyport.OpenResult{Opened: opened},
		[]sallyport.Opened{opened},
		sallyport.EncryptItem{Plaintext: []byte("tell nobody")},
	} {
		if text, err := json.Marshal(v); err != nil || strings.Contains(string(text), "dGVsbC") {
			t.Errorf("%T marshals to %s, %v", v, text, err)
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%X"} {
			s := fmt.Sprintf(verb, v)
			for _, leak := range []string{"tell", "74656c6c", "74656C6C", "116 101", "0x74"} {
				if strings.Contains(s, leak) {
					t.Errorf("%s of %T prints %s", verb, v, s)
				}
			}
		}
	}
}
