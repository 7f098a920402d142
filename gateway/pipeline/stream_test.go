package pipeline_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/gateway/audit/audittest"
	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/identity"
	"github.com/sallyport/sallyport/gateway/pipeline"
	"github.com/sallyport/sallyport/gateway/policy"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

type leaseGrant = pipeline.Grant[identity.Workload]

// leaseRoad is a road with a route that issues and one that streams. Their handlers
// are set by each test.
type leaseRoad struct {
	*road
	issue, watch pipeline.Route
	act          func(context.Context, leaseGrant) error
	other        ca // that vouches for nobody
}

func newLeaseRoad(t *testing.T) *leaseRoad {
	t.Helper()
	r := &leaseRoad{road: newRoad(t), other: newCA(t)}
	subject := func(name string, s *pipeline.Subject) error {
		return s.SetSecretRole("a", "tenants/a/secretRoles/r", name)
	}
	r.issue = pipeline.Issuing("sallyport.secrets.v1.SecretService.LeaseSecret", policy.ActionLeaseSecret,
		func(q *secretsv1.LeaseSecretRequest, s *pipeline.Subject) error { return subject(q.GetName(), s) },
		func(ctx context.Context, g leaseGrant, _ *secretsv1.LeaseSecretRequest, reply *secretsv1.LeaseSecretResponse) error {
			reply.Lease = &secretsv1.Lease{Name: "made"}
			return r.act(ctx, g)
		})
	r.watch = pipeline.Watching("sallyport.secrets.v1.SecretService.WatchLease", policy.ActionWatchLease,
		func(q *secretsv1.WatchLeaseRequest, s *pipeline.Subject) error { return subject(q.GetName(), s) },
		func(ctx context.Context, g leaseGrant, _ *secretsv1.WatchLeaseRequest, reply *secretsv1.WatchLeaseResponse) error {
			reply.Lease = &secretsv1.Lease{Name: "watched"}
			return r.act(ctx, g)
		}, func(reply *secretsv1.WatchLeaseResponse, receipt string) { reply.Receipt = receipt })
	r.Metrics = pipeline.NewMetrics(prometheus.NewRegistry(), []pipeline.Route{r.issue, r.watch})
	return r
}

// distrust takes everybody's authority away.
func (r *leaseRoad) distrust() error {
	trust, err := authn.NewTrust(map[string][]byte{"example.org": r.other.pem}, nil)
	if err == nil {
		r.Authenticator.SetTrust(trust)
	}
	return err
}

// What a call has made is undone if its reply does not leave, once, and is left alone
// if it does.
func TestUnansweredIsUndone(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(r *leaseRoad, cancel context.CancelFunc) error
		want  string
		undo  int
	}{
		"answered":                             {func(*leaseRoad, context.CancelFunc) error { return nil }, "", 0},
		"the handler fails":                    {func(*leaseRoad, context.CancelFunc) error { return fault.New(fault.Conflict, "") }, "CONFLICT", 1},
		"the outcome is lost":                  {func(r *leaseRoad, _ context.CancelFunc) error { r.log.FailNext(audittest.Lost); return nil }, "AUDIT_UNAVAILABLE", 1},
		"the outcome is done, and called lost": {func(r *leaseRoad, _ context.CancelFunc) error { r.log.FailNext(audittest.Persisted); return nil }, "AUDIT_UNAVAILABLE", 1},
		"the caller is let in no more": {func(r *leaseRoad, _ context.CancelFunc) error {
			return r.distrust()
		}, "CERTIFICATE_UNTRUSTED", 1},
		"the caller goes away": {func(_ *leaseRoad, cancel context.CancelFunc) error { cancel(); return nil }, "CANCELLED", 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newLeaseRoad(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			undone := 0
			r.act = func(_ context.Context, g leaseGrant) error {
				g.OnUnanswered(func() { undone++ })
				return tt.spoil(r, cancel)
			}
			reply := new(secretsv1.LeaseSecretResponse)
			_, err := r.Serve(ctx, &r.issue, r.workload, &secretsv1.LeaseSecretRequest{Name: "x"}, reply)
			if reasonOf(err) != tt.want || undone != tt.undo || (proto.Size(reply) == 0) != (err != nil) {
				t.Errorf("%v, undone %d times, reply %v", err, undone, reply)
			}
			phases := []auditv1.Phase{}
			for _, rec := range r.log.Records() {
				phases = append(phases, rec.GetPhase())
			}
			if want := []auditv1.Phase{auditv1.Phase_PHASE_INTENT, auditv1.Phase_PHASE_OUTCOME}; tt.want != "AUDIT_UNAVAILABLE" && !slices.Equal(phases, want) {
				t.Errorf("recorded %v", phases)
			}
		})
	}
	r := newLeaseRoad(t)
	r.log.FailNext(audittest.Lost)
	r.act = func(context.Context, leaseGrant) error { t.Error("acted without an intent"); return nil }
	_, err := r.Serve(t.Context(), &r.issue, r.workload, &secretsv1.LeaseSecretRequest{Name: "x"}, new(secretsv1.LeaseSecretResponse))
	if reasonOf(err) != "AUDIT_UNAVAILABLE" {
		t.Error(err)
	}
}

// Each reply of a stream is a call: judged, recorded, with its receipt. It comes when
// its time has come or something changed, and the last one ends the stream.
func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLeaseRoad(t)
		changed := make(chan struct{})
		var at []time.Duration
		begin := time.Now()
		var due time.Time
		r.act = func(_ context.Context, g leaseGrant) error {
			at = append(at, time.Since(begin))
			if !g.Scheduled().Equal(due) {
				t.Errorf("scheduled %v, want %v", g.Scheduled(), due)
			}
			switch len(at) {
			case 1:
				due = time.Now().Add(time.Minute)
				g.Again(due, nil)
			case 2:
				due = time.Now().Add(time.Hour)
				g.Again(due, changed)
				time.AfterFunc(time.Second, func() { close(changed) })
			}
			return nil
		}
		s := r.Open(&r.watch, r.workload, &secretsv1.WatchLeaseRequest{Name: "x"})
		for i := range 3 {
			reply := new(secretsv1.WatchLeaseResponse)
			receipt, err := s.Next(t.Context(), reply)
			if err != nil || reply.GetReceipt() != receipt.String() || receipt.Verify(r.log.PublicKey()) != nil {
				t.Fatalf("reply %d: %v, %v", i, reply, err)
			}
		}
		if _, err := s.Next(t.Context(), new(secretsv1.WatchLeaseResponse)); !errors.Is(err, io.EOF) {
			t.Errorf("after the last: %v", err)
		}
		if want := []time.Duration{0, time.Minute, time.Minute + time.Second}; !slices.Equal(at, want) {
			t.Errorf("replies at %v, want %v", at, want)
		}
		if n := len(r.log.Records()); n != 6 {
			t.Errorf("%d records of three replies", n)
		}
	})
}

// A stream that waits ends when its caller does, and when the gateway drains.
func TestStreamEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLeaseRoad(t)
		r.act = func(_ context.Context, g leaseGrant) error {
			g.Again(time.Now().Add(time.Hour), nil)
			return nil
		}
		next := func(ctx context.Context, s *pipeline.Stream) string {
			_, err := s.Next(ctx, new(secretsv1.WatchLeaseResponse))
			return reasonOf(err)
		}
		s := r.Open(&r.watch, r.workload, &secretsv1.WatchLeaseRequest{Name: "x"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if got := next(ctx, s); got != "" {
			t.Fatal(got)
		}
		if got := next(ctx, s); got != "DEADLINE_EXCEEDED" {
			t.Errorf("late: %s", got)
		}
		time.AfterFunc(time.Minute, r.Drain)
		if got := next(t.Context(), s); got != "SHUTTING_DOWN" {
			t.Errorf("draining: %s", got)
		}
		r.Drain() // twice is once
	})
}

// A reply of a stream that cannot be sent is undone, and a person gets no stream.
func TestUnsentIsUndone(t *testing.T) {
	r := newLeaseRoad(t)
	undone := 0
	r.act = func(_ context.Context, g leaseGrant) error {
		g.OnUnanswered(func() { undone++ })
		return nil
	}
	s := r.Open(&r.watch, r.workload, &secretsv1.WatchLeaseRequest{Name: "x"})
	if _, err := s.Next(t.Context(), new(secretsv1.WatchLeaseResponse)); err != nil || undone != 0 {
		t.Fatalf("%v, undone %d times", err, undone)
	}
	s.Unsent()
	s.Unsent()
	if undone != 1 {
		t.Errorf("undone %d times", undone)
	}
	_, err := r.Open(&r.watch, r.person, &secretsv1.WatchLeaseRequest{Name: "x"}).Next(t.Context(), new(secretsv1.WatchLeaseResponse))
	if reasonOf(err) != "HUMAN_ON_DATA_PLANE" || undone != 1 {
		t.Errorf("a person: %v", err)
	}
	if _, err := r.Serve(t.Context(), &r.watch, r.workload, &secretsv1.WatchLeaseRequest{Name: "x"}, new(secretsv1.WatchLeaseResponse)); reasonOf(err) != "INTERNAL" {
		t.Errorf("a stream called as one that is not: %v", err)
	}
}
