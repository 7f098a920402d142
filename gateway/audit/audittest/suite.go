package audittest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport/sallyport/gateway/audit"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
)

// Run tests what audit.Log promises. open returns an empty log that works, and
// the key of its receipts; it registers its own clean-up with t.
func Run(t *testing.T, open func(t *testing.T) (audit.Log, audit.PublicKey)) {
	t.Run("Receipt", func(t *testing.T) { testReceipt(t, open) })
	t.Run("Concurrent", func(t *testing.T) { testConcurrent(t, open) })
	t.Run("CanceledContext", func(t *testing.T) { testCanceled(t, open) })
	t.Run("DoesNotRetain", func(t *testing.T) { testDoesNotRetain(t, open) })
	t.Run("InvalidRecord", func(t *testing.T) { testInvalid(t, open) })
}

// Record returns a record that names i.
func Record(i int) *auditv1.Record {
	return &auditv1.Record{
		RequestId: fmt.Appendf(nil, "request-%08d", i),
		Time:      timestamppb.Now(),
		Phase:     auditv1.Phase_PHASE_CALL, CallerKind: auditv1.CallerKind_CALLER_KIND_WORKLOAD,
		Caller: "spiffe://example.org/ns/test/sa/caller", Action: "/sallyport.data.v1.DataService/Encrypt",
		Resource: fmt.Sprintf("tenants/acme/keyrings/k%d", i), Decision: auditv1.Decision_DECISION_ALLOW,
	}
}

func testReceipt(t *testing.T, open func(*testing.T) (audit.Log, audit.PublicKey)) {
	log, key := open(t)
	for i := range 5 {
		r := Record(i)
		receipt, err := log.Append(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		check(t, key, receipt, r)
		if receipt.Sequence() != uint64(i) {
			t.Errorf("record %d has sequence number %d", i, receipt.Sequence())
		}
	}
}

// check verifies a receipt, through its text form.
func check(t *testing.T, key audit.PublicKey, receipt audit.Receipt, r *auditv1.Record) {
	t.Helper()
	parsed, err := audit.ParseReceipt(receipt.String())
	if err != nil {
		t.Fatalf("parsing %s: %v", receipt, err)
	}
	if err := parsed.Verify(key); err != nil {
		t.Errorf("receipt %d: %v", parsed.Sequence(), err)
	}
	b, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if audit.LeafHash(b) != parsed.Record {
		t.Errorf("receipt %d is of another record", parsed.Sequence())
	}
}

func testConcurrent(t *testing.T, open func(*testing.T) (audit.Log, audit.PublicKey)) {
	const callers, each = 16, 25
	log, key := open(t)
	var mu sync.Mutex
	var seen []uint64
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				r := Record(c*each + i)
				receipt, err := log.Append(t.Context(), r)
				if err != nil {
					t.Error(err)
					return
				}
				check(t, key, receipt, r)
				mu.Lock()
				seen = append(seen, receipt.Sequence())
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(seen)
	for i, seq := range seen {
		if seq != uint64(i) {
			t.Fatalf("sequence numbers are not dense: %d in place %d", seq, i)
		}
	}
	if len(seen) != callers*each {
		t.Errorf("%d receipts, want %d", len(seen), callers*each)
	}
}

func testCanceled(t *testing.T, open func(*testing.T) (audit.Log, audit.PublicKey)) {
	log, key := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := log.Append(ctx, Record(0)); !errors.Is(err, context.Canceled) {
		t.Errorf("with a canceled context: %v", err)
	}
	r := Record(1)
	receipt, err := log.Append(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	check(t, key, receipt, r)
}

func testDoesNotRetain(t *testing.T, open func(*testing.T) (audit.Log, audit.PublicKey)) {
	log, key := open(t)
	r := Record(1)
	receipt, err := log.Append(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	copied := proto.CloneOf(r)
	r.Caller = "somebody else"
	clear(r.RequestId)
	if _, err := log.Append(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	check(t, key, receipt, copied)
}

func testInvalid(t *testing.T, open func(*testing.T) (audit.Log, audit.PublicKey)) {
	log, _ := open(t)
	r := Record(1)
	r.Caller = "\xff"
	if _, err := log.Append(t.Context(), r); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("a record that cannot be marshalled: %v", err)
	}
}
