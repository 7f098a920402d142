package sqlite

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/lease"
)

// testLease gives a lease as it is in use, the n-th.
func testLease(n int) lease.Lease {
	workload := fmt.Sprintf("workload-%05d", n%1000)
	l := lease.Lease{
		Name:     lease.Name{Role: lease.RoleName{Tenant: "acme", Role: "orders-db"}},
		Workload: "spiffe://example.org/tenant/acme/" + workload, Registration: workload, Evidence: [32]byte{byte(n), byte(n >> 8), 31: 1},
		Source: "vault", Created: at(0).Add(time.Duration(n)), MaxExpires: at(n + 86_400), Lifetime: 15 * time.Minute,
		Anchor: lease.Anchor{Handle: fmt.Sprintf("accessor-%020d", n)}, Expires: at(n + 900), Due: at(n + 30), Revocable: true,
	}
	// Random to the index, as real ones are.
	binary.BigEndian.PutUint64(l.Name.ID[:], uint64(n)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(l.Name.ID[8:], uint64(n))
	return l
}

// BenchmarkLedger measures what every issued secret waits for.
//
//	go test -bench Ledger -run '^$' ./gateway/store/sqlite
func BenchmarkLedger(b *testing.B) {
	for _, callers := range []int{1, 32} {
		s, _ := newStore(b)
		var n atomic.Int64
		for range 10_000 { // live ones
			must(b, s.Reserve(b.Context(), testLease(int(n.Add(1))), 1<<30))
		}
		b.Run(fmt.Sprintf("reserve/%d", callers), func(b *testing.B) {
			each(b, callers, func() error { return s.Reserve(b.Context(), testLease(int(n.Add(1))), 1<<30) })
		})
		next := atomic.Int64{}
		b.Run(fmt.Sprintf("update/%d", callers), func(b *testing.B) {
			each(b, callers, func() error {
				l, err := s.Lease(b.Context(), testLease(int(next.Add(1)%10_000)+1).Name)
				if err != nil {
					return err
				}
				l.State, l.Anchor.Ref, l.Due = lease.StateActive, "database/creds/orders/abcdefghijklmnop", l.Expires
				return s.Update(b.Context(), l)
			})
		})
	}
}

// each lets callers share b.N calls.
func each(b *testing.B, callers int, call func() error) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := call(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
