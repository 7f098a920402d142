//go:build unix

package journal_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/journal"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
)

// BenchmarkAppend is the whole of an append on the disk under TMPDIR, with as
// many callers as the name says.
func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{1, 8, 32, 128} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			key, err := audit.GenerateKey("audit.example/bench")
			if err != nil {
				b.Fatal(err)
			}
			dir := b.TempDir()
			if err := journal.Create(dir, key.Public()); err != nil {
				b.Fatal(err)
			}
			j, err := journal.Open(journal.Config{Dir: dir, Key: key})
			if err != nil {
				b.Fatal(err)
			}
			defer j.Close(context.Background())
			var n atomic.Int64
			b.ReportAllocs()
			cpu := userTime(b)
			b.ResetTimer()
			done := make(chan struct{})
			for range callers {
				go func() {
					r := benchRecord()
					for n.Add(1) <= int64(b.N) {
						if _, err := j.Append(context.Background(), r); err != nil {
							b.Error(err)
							break
						}
					}
					done <- struct{}{}
				}()
			}
			for range callers {
				<-done
			}
			b.StopTimer()
			s := j.Stats()
			b.ReportMetric(float64((userTime(b)-cpu).Nanoseconds())/float64(b.N), "user-ns/op")
			b.ReportMetric(float64(s.Records)/float64(s.Batches), "records/batch")
			b.ReportMetric(float64(s.Records)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// benchRecord is as large as that of an ordinary call: about 300 bytes.
func benchRecord() *auditv1.Record {
	digest := make([]byte, 32)
	return &auditv1.Record{
		RequestId: make([]byte, 16), Time: timestamppb.New(time.Unix(1780000000, 123456789)),
		Phase:      auditv1.Phase_PHASE_CALL,
		CallerKind: auditv1.CallerKind_CALLER_KIND_WORKLOAD,
		Caller:     "spiffe://example.org/ns/payments/sa/ledger", EvidenceDigest: digest,
		Action: "/sallyport.data.v1.DataService/Encrypt", Resource: "tenants/acme/keyrings/orders",
		Version: 3, Decision: auditv1.Decision_DECISION_ALLOW, Policies: []string{"orders-encrypt"},
		PolicyRevision: 41, InputSize: 1024, OutputSize: 1134, EnvelopeDigest: digest,
		Context: []*auditv1.ContextHash{{Name: "order", ValueHash: digest[:16]}},
	}
}

// userTime is the time that the process has spent outside the kernel.
func userTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano())
}
