package sallyport_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/tlog"
	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/gateway/development"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

func filesOf(gw *gatewaytest.Gateway, p development.Pair) sallyport.Files {
	return sallyport.Files{Certificate: p.Cert, Key: p.Key, CA: gw.Endpoints.CA}
}

func control(t *testing.T, gw *gatewaytest.Gateway) *sallyport.Control {
	t.Helper()
	c, err := sallyport.DialControl(t.Context(), gw.Endpoints.Control, sallyport.Options{Credentials: filesOf(gw, gw.Endpoints.Operator)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Every verb, against a real gateway, and every receipt in its log.
func TestEveryVerb(t *testing.T) {
	gw := gatewaytest.Start(t)
	ctx := t.Context()
	admin := control(t, gw)
	for id, purpose := range map[string]controlv1.Purpose{
		"lookup": controlv1.Purpose_PURPOSE_DETERMINISTIC, "tags": controlv1.Purpose_PURPOSE_MAC,
	} {
		_, err := admin.Keyrings.CreateKeyring(ctx, &controlv1.CreateKeyringRequest{Parent: "tenants/demo", KeyringId: id, Purpose: purpose})
		if err != nil {
			t.Fatal(err)
		}
	}
	var receipts []string
	c := dial(t, gw.Endpoints.GRPC, filesOf(gw, gw.Endpoints.Workload), func(o *sallyport.Options) {
		o.OnReceipt = func(_ context.Context, _, r string) { receipts = append(receipts, r) }
	})
	plaintext, bound := []byte("attack at dawn"), map[string]string{"k": "v"}

	k := c.Keyring(ring)
	sealed, err := k.Encrypt(ctx, plaintext, bound)
	if err != nil || sealed.Version != 1 {
		t.Fatal(sealed, err)
	}
	opened, err := k.Decrypt(ctx, sealed.Ciphertext, bound)
	if err != nil || !bytes.Equal(opened.Plaintext, plaintext) || opened.Version != 1 {
		t.Fatal(opened, err)
	}
	compact, err := k.Compact().Encrypt(ctx, plaintext, bound)
	if err != nil || len(compact.Ciphertext)-len(plaintext) > 56 {
		t.Fatal(len(compact.Ciphertext), err)
	}
	if _, err := admin.Keyrings.RotateKeyring(ctx, &controlv1.RotateKeyringRequest{Name: ring}); err != nil {
		t.Fatal(err)
	}
	moved, err := k.Rewrap(ctx, compact.Ciphertext, bound)
	if err != nil || moved.Version != 2 || moved.PreviousVersion != 1 || len(moved.Ciphertext) != len(compact.Ciphertext) {
		t.Fatal(moved, err)
	}
	batch, err := k.BatchRewrap(ctx, []sallyport.DecryptItem{{Ciphertext: sealed.Ciphertext, Context: bound}, {Ciphertext: []byte("none")}})
	if err != nil || batch[0].Err != nil || batch[0].Version != 2 || !errors.Is(batch[1].Err, sallyport.MalformedEnvelope) {
		t.Fatal(batch, err)
	}

	lookup := c.Keyring("tenants/demo/keyrings/lookup")
	one, err := lookup.DeterministicEncrypt(ctx, plaintext, bound)
	if err != nil {
		t.Fatal(err)
	}
	two, err := lookup.DeterministicEncrypt(ctx, plaintext, bound)
	if err != nil || !bytes.Equal(one.Ciphertext, two.Ciphertext) {
		t.Fatal("deterministic encryption differs", err)
	}
	opened, err = lookup.DeterministicDecrypt(ctx, one.Ciphertext, bound)
	if err != nil || !bytes.Equal(opened.Plaintext, plaintext) {
		t.Fatal(opened, err)
	}

	tags := c.Keyring("tenants/demo/keyrings/tags")
	tag, err := tags.ComputeMac(ctx, plaintext, bound)
	if err != nil {
		t.Fatal(err)
	}
	for data, want := range map[string]bool{"attack at dawn": true, "attack at dusk": false} {
		verdict, err := tags.VerifyMac(ctx, []byte(data), tag.MAC, bound)
		if err != nil || verdict.Valid != want {
			t.Errorf("%s: %+v, %v", data, verdict, err)
		}
	}
	if _, err := tags.Encrypt(ctx, plaintext, nil); !errors.Is(err, sallyport.PurposeMismatch) {
		t.Errorf("another purpose: %v", err)
	}

	checkReceipts(t, gw, receipts, 12)
}

// checkReceipts checks that there are as many receipts as calls and that the log
// holds the record of each.
func checkReceipts(t *testing.T, gw *gatewaytest.Gateway, receipts []string, want int) {
	t.Helper()
	text, err := os.ReadFile(gw.Endpoints.Audit.Key)
	if err != nil {
		t.Fatal(err)
	}
	key, err := audit.ParsePublicKey(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(receipts) != want {
		t.Errorf("%d receipts, want %d", len(receipts), want)
	}
	for _, text := range receipts {
		r, err := audit.ParseReceipt(text)
		if err != nil {
			t.Fatal(err)
		}
		if in, err := tlog.CheckReceipt(gw.Endpoints.Audit.Dir, key, r); err != nil || in.Record == nil {
			t.Errorf("receipt of record %d: %v", r.Sequence(), err)
		}
	}
}

// A batch beyond both limits of one request goes through, in order.
func TestLargeBatches(t *testing.T) {
	gw := gatewaytest.Start(t)
	k := dial(t, gw.Endpoints.GRPC, filesOf(gw, gw.Endpoints.Workload)).Keyring(ring)
	for name, shape := range map[string]struct{ items, size int }{"many": {10_000, 16}, "large": {40, 100_000}} {
		plain := make([]sallyport.EncryptItem, shape.items)
		for i := range plain {
			plain[i] = sallyport.EncryptItem{
				Plaintext: fmt.Appendf(nil, "%0*d", shape.size, i), Context: map[string]string{"row": fmt.Sprint(i)},
			}
		}
		sealed, err := k.BatchEncrypt(t.Context(), plain)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		cipher := make([]sallyport.DecryptItem, len(plain))
		for i, s := range sealed {
			cipher[i] = sallyport.DecryptItem{Ciphertext: s.Ciphertext, Context: plain[i].Context}
		}
		cipher[7].Context = nil
		opened, err := k.BatchDecrypt(t.Context(), cipher)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i, o := range opened {
			if i == 7 {
				if !errors.Is(o.Err, sallyport.DecryptionFailed) {
					t.Errorf("%s: the bad item: %v", name, o.Err)
				}
			} else if o.Err != nil || !bytes.Equal(o.Plaintext, plain[i].Plaintext) || o.Receipt == "" {
				t.Fatalf("%s: item %d: %v", name, i, o.Err)
			}
		}
	}
}

// What the real gateway refuses has the reason it should have.
func TestRefusals(t *testing.T) {
	gw := gatewaytest.Start(t)
	ctx := t.Context()
	workload := dial(t, gw.Endpoints.GRPC, filesOf(gw, gw.Endpoints.Workload))
	person := dial(t, gw.Endpoints.GRPC, filesOf(gw, gw.Endpoints.Operator))
	stranger := dial(t, gw.Endpoints.GRPC, filesOf(gw, gw.Issue(gw.Workloads, development.Leaf{SPIFFEID: "spiffe://dev.sallyport/stranger"})))
	sealed, err := workload.Keyring(ring).Encrypt(ctx, []byte("p"), nil)
	if err != nil {
		t.Fatal(err)
	}
	encrypt := func(c *sallyport.Client, name string, p []byte, bound map[string]string) error {
		_, err := c.Keyring(name).Encrypt(ctx, p, bound)
		return err
	}
	decrypt := func(p []byte, bound map[string]string) error {
		_, err := workload.Keyring(ring).Decrypt(ctx, p, bound)
		return err
	}
	for _, test := range []struct {
		err  error
		want sallyport.Reason
	}{
		{encrypt(person, ring, nil, nil), sallyport.HumanOnDataPlane},
		{encrypt(stranger, ring, nil, nil), sallyport.WorkloadNotRegistered},
		{encrypt(workload, "tenants/demo/keyrings/none", nil, nil), sallyport.PermissionDenied},
		{encrypt(workload, "default", nil, nil), sallyport.InvalidArgument},
		{encrypt(workload, ring, make([]byte, 2<<20), nil), sallyport.RequestTooLarge},
		{encrypt(workload, ring, make([]byte, 8<<20), nil), sallyport.RequestTooLarge}, // grpc-go's own limit
		{encrypt(workload, ring, nil, map[string]string{"": "x"}), sallyport.InvalidContext},
		{decrypt(sealed.Ciphertext, map[string]string{"k": "v"}), sallyport.DecryptionFailed},
		{decrypt([]byte("none"), nil), sallyport.MalformedEnvelope},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("want %s, got %v", test.want, test.err)
		}
	}
	// On an open connection too.
	if _, err := control(t, gw).Workloads.DisableWorkload(ctx, &controlv1.DisableWorkloadRequest{Name: "workloads/demo"}); err != nil {
		t.Fatal(err)
	}
	if err := encrypt(workload, ring, nil, nil); !errors.Is(err, sallyport.WorkloadDisabled) {
		t.Errorf("a disabled workload: %v", err)
	}
}

// A restart of the gateway costs callers time and no errors.
func TestGatewayRestarts(t *testing.T) {
	dir := t.TempDir()
	first := gatewaytest.Start(t, gatewaytest.WithDir(dir))
	address := first.Endpoints.GRPC
	client := dial(t, address, filesOf(first, first.Endpoints.Workload), func(o *sallyport.Options) { o.Attempts = 50 })
	if _, err := client.Keyring(ring).Encrypt(t.Context(), []byte("p"), nil); err != nil {
		t.Fatal(err)
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := client.Keyring(ring).Encrypt(t.Context(), []byte("p"), nil)
		done <- err
	}()
	time.Sleep(100 * time.Millisecond) // so that some attempts find nobody
	gatewaytest.Start(t, gatewaytest.WithDir(dir), gatewaytest.WithConfig(func(s *config.Config) { s.Listen.GRPC = address }))
	if err := <-done; err != nil {
		t.Error(err)
	}
}
