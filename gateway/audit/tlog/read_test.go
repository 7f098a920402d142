package tlog_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/audittest"
	"github.com/sallyport/sallyport/gateway/audit/tlog"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
)

func TestRead(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	dir := create(t, key)
	l := open(t, small(dir, key))
	start := time.Unix(1780000000, 0)
	for i := range 40 {
		r := audittest.Record(i)
		r.Time = timestamppb.New(start.Add(time.Duration(i) * time.Second))
		if i%10 == 0 {
			r.Decision, r.Reason, r.Caller = auditv1.Decision_DECISION_DENY, "POLICY", "operators/ada"
		}
		if _, err := l.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		filter tlog.Filter
		want   int
	}{
		"all":      {tlog.Filter{}, 40},
		"sequence": {tlog.Filter{FromSequence: 33}, 7},
		"time":     {tlog.Filter{From: start.Add(5 * time.Second), To: start.Add(9 * time.Second)}, 4},
		"caller":   {tlog.Filter{Caller: "operators/*"}, 4},
		"decision": {tlog.Filter{Decision: auditv1.Decision_DECISION_ALLOW}, 36},
		"reason":   {tlog.Filter{Reason: "POLICY"}, 4},
		"success":  {tlog.Filter{Reason: "-"}, 36},
		"resource": {tlog.Filter{Resource: "tenants/acme/keyrings/k7"}, 1},
		"action":   {tlog.Filter{Action: "/sallyport.data.v1.DataService/Decrypt"}, 0},
	} {
		n, next := 0, uint64(0)
		for e, err := range tlog.Read(t.Context(), dir, key.Public(), c.filter, false) {
			if err != nil {
				t.Fatal(err)
			}
			b, err := proto.Marshal(e.Record)
			if err != nil || audit.LeafHash(b) != e.Hash || e.Sequence < next {
				t.Errorf("%s: entry %d: %v", name, e.Sequence, err)
			}
			n, next = n+1, e.Sequence+1
		}
		if n != c.want {
			t.Errorf("%s: %d records, want %d", name, n, c.want)
		}
	}
	for range tlog.Read(t.Context(), dir, key.Public(), tlog.Filter{}, false) {
		break // a loop may end early
	}
	for _, err := range tlog.Read(t.Context(), t.TempDir(), key.Public(), tlog.Filter{}, false) {
		if err == nil {
			t.Error("reading what is not a log")
		}
	}
}

func TestFollow(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	dir := create(t, key)
	l := open(t, tlog.Config{Dir: dir, Key: key, SegmentRecords: 3})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for i := range 20 {
			if _, err := l.Append(ctx, audittest.Record(i)); err != nil {
				t.Error(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	next := uint64(0)
	for e, err := range tlog.Read(ctx, dir, key.Public(), tlog.Filter{}, true) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Sequence != next {
			t.Fatalf("record %d, want %d", e.Sequence, next)
		}
		if next++; next == 20 {
			cancel()
		}
	}
	if next != 20 {
		t.Errorf("%d records", next)
	}
}

func TestCheckReceiptRefuses(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	dir, other := create(t, key), create(t, key)
	l := open(t, small(dir, key))
	receipt := fill(t, l, 10)[3]
	closeLog(t, l)
	l = open(t, small(other, key))
	fill(t, l, 10)
	closeLog(t, l)

	if in, err := tlog.CheckReceipt(dir, key.Public(), receipt); err != nil || in.Record == nil {
		t.Errorf("%+v, %v", in, err)
	}
	if _, err := tlog.CheckReceipt(other, key.Public(), receipt); !errors.Is(err, tlog.ErrNotInLog) {
		t.Errorf("in another log under the same key: %v", err)
	}
	forged := receipt
	forged.Record[0]++
	if _, err := tlog.CheckReceipt(dir, key.Public(), forged); !errors.Is(err, audit.ErrReceiptSignature) {
		t.Errorf("forged: %v", err)
	}
	if _, err := tlog.CheckReceipt(dir, newKey(t).Public(), receipt); !errors.Is(err, audit.ErrReceiptSignature) {
		t.Errorf("under another key: %v", err)
	}
}
