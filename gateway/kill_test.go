package gateway_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/tlog"
	"github.com/sallyport/sallyport/gateway/development"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
)

const (
	lives   = 8
	callers = 4
)

// acknowledged is what callers were told before the gateway was killed.
type acknowledged struct {
	mu       sync.Mutex
	receipts []string
	sealed   map[string][]byte // envelopes, by their plaintext
	keyrings []string
}

// A gateway that is killed under load, at any moment, again and again, has lost
// nothing that it acknowledged: every receipt's record is in a log that verifies,
// every envelope opens, every keyring is there.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	told := &acknowledged{sealed: map[string][]byte{}}
	for life := range lives {
		c := startChild(t, dir)
		until(t, c, func(ctx context.Context) { told.load(ctx, t, c, life) })
	}
	c := startChild(t, dir)
	told.checkData(t, c)
	c.stop(t)
	told.checkLog(t, c)
	if len(told.keyrings) == 0 || len(told.receipts) < lives {
		t.Errorf("hardly anything was acknowledged: %d calls and %d keyrings", len(told.receipts), len(told.keyrings))
	}
	t.Logf("%d calls and %d keyrings in %d lives", len(told.receipts), len(told.keyrings), lives)
}

// until kills the child at a random moment of the load, and waits for both to end.
func until(t *testing.T, c child, load func(context.Context)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { load(ctx) })
	time.AfterFunc(time.Duration(150+rand.IntN(600))*time.Millisecond, func() { _ = c.Process.Kill() })
	_ = c.Wait() // it was killed
	cancel()
	wg.Wait()
}

// load calls until the gateway is gone, and keeps what was acknowledged.
func (a *acknowledged) load(ctx context.Context, t *testing.T, c child, life int) {
	var wg sync.WaitGroup
	for caller := range callers {
		asks := doors(t, c.gw, c.gw.Endpoints.Workload)
		ask := asks[[]string{"gRPC", "REST"}[caller%2]]
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				text := fmt.Sprintf("life %d, caller %d, call %d", life, caller, i)
				reply := ask(t, encrypt(text, here))
				if reply.untyped != nil || reply.reason != admitted {
					continue
				}
				a.mu.Lock()
				a.receipts, a.sealed[text] = append(a.receipts, reply.receipt), reply.payload
				a.mu.Unlock()
			}
		})
	}
	keyrings := controlv1.NewKeyringServiceClient(dial(t, c.gw, c.gw.Endpoints.Control, c.gw.Endpoints.Operator))
	for i := 0; ctx.Err() == nil; i++ {
		request := &controlv1.CreateKeyringRequest{
			Parent: "tenants/demo", KeyringId: fmt.Sprintf("life-%d-%d", life, i), Purpose: controlv1.Purpose_PURPOSE_AEAD,
		}
		if made, err := keyrings.CreateKeyring(ctx, request); err == nil {
			a.mu.Lock()
			a.keyrings = append(a.keyrings, made.GetName())
			a.mu.Unlock()
		}
	}
	wg.Wait()
}

func (a *acknowledged) checkData(t *testing.T, c child) {
	t.Helper()
	client := datav1.NewDataServiceClient(dial(t, c.gw, c.gw.Endpoints.GRPC, c.gw.Endpoints.Workload))
	for text, sealed := range a.sealed {
		reply, err := client.Decrypt(t.Context(), &datav1.DecryptRequest{
			Name: development.DemoKeyring, Ciphertext: sealed, Context: map[string]string{here.name: here.value},
		})
		if err != nil || string(reply.GetPlaintext()) != text {
			t.Fatalf("%q: decrypted to %q, %v", text, reply.GetPlaintext(), err)
		}
	}
	keyrings := controlv1.NewKeyringServiceClient(dial(t, c.gw, c.gw.Endpoints.Control, c.gw.Endpoints.Operator))
	for _, name := range a.keyrings {
		if _, err := keyrings.GetKeyring(t.Context(), &controlv1.GetKeyringRequest{Name: name}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for i := 0; i < len(a.keyrings); i += 10 { // not all: opening has its budget
		if _, err := client.Encrypt(t.Context(), &datav1.EncryptRequest{Name: a.keyrings[i]}); err != nil {
			t.Fatalf("%s: %v", a.keyrings[i], err)
		}
	}
}

func (a *acknowledged) checkLog(t *testing.T, c child) {
	t.Helper()
	dir, key := c.gw.Endpoints.Audit.Dir, auditKey(t, c.gw.Endpoints.Audit.Key)
	if _, err := tlog.Verify(dir, key, tlog.VerifyOptions{}); err != nil {
		t.Fatal(err)
	}
	logged := map[uint64]audit.Hash{}
	for e, err := range tlog.Read(t.Context(), dir, key, tlog.Filter{}, false) {
		must(t, err)
		logged[e.Sequence] = e.Hash
	}
	for _, text := range a.receipts {
		r, err := audit.ParseReceipt(text)
		must(t, err)
		if err := r.Verify(key); err != nil || logged[r.Sequence()] != r.Record {
			t.Fatalf("record %d was acknowledged and is not in the log (%v)", r.Sequence(), err)
		}
	}
}
