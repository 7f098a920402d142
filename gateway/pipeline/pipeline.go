// Package pipeline is the single road of a request: authenticate, narrow,
// authorize, act, record, answer.
//
// A handler takes a Grant, and only the road makes one, so that no handler runs
// for a caller who was not let in. A reply leaves only with the receipt of its
// durable record, so that nothing is answered that is not remembered.
package pipeline

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/identity"
	"github.com/sallyport/sallyport/gateway/policy"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
)

// Config is what a Pipeline is made of. Every field is required.
type Config struct {
	Authenticator *authn.Authenticator
	Policy        *policy.Engine
	Log           audit.Log
	// PseudonymKey is the HMAC key of context values in records; at least 32 bytes.
	PseudonymKey []byte
	// MaxInFlight is how many calls may be on the road at once; more are refused
	// with OVERLOADED.
	MaxInFlight int
	Logger      *slog.Logger
	Metrics     *Metrics
	Now         func() time.Time
}

// Pipeline is the road. It is safe for concurrent use.
type Pipeline struct {
	Config
	pseudonyms *pseudonyms
	principals principals
	refusals   refusals
	calls      sync.Pool
	inFlight   atomic.Int64
	// draining is closed when streams shall end.
	draining chan struct{}
	drain    sync.Once
}

// New makes a Pipeline.
func New(c Config) (*Pipeline, error) {
	if len(c.PseudonymKey) < 32 {
		return nil, errors.New("pipeline: the pseudonym key has fewer than 32 bytes")
	}
	p := &Pipeline{Config: c, pseudonyms: newPseudonyms(c.PseudonymKey), draining: make(chan struct{})}
	p.calls.New = func() any { return &call{pipeline: p} }
	return p, nil
}

// Serve takes one request down the road and fills the reply. On error, a
// *fault.Error, the reply is empty. The receipt is there whenever a record is: for
// refusals too.
func (p *Pipeline) Serve(ctx context.Context, r *Route, e *authn.Evidence, req, reply proto.Message) (audit.Receipt, error) {
	if r.Stream {
		return audit.Receipt{}, fault.New(fault.Internal, "a streaming method was called as one that is not")
	}
	c := p.calls.Get().(*call)
	defer p.calls.Put(c)
	defer c.end()
	return p.answer(ctx, c, r, e, req, reply)
}

// answer begins the call and takes it down the road.
func (p *Pipeline) answer(ctx context.Context, c *call, r *Route, e *authn.Evidence, req, reply proto.Message) (audit.Receipt, error) {
	c.begin(r, p.Now())
	receipt, f := p.serve(ctx, c, e, req, reply)
	if c.undo != nil && f == nil && ctx.Err() != nil {
		f = fault.From(ctx.Err()) // nobody waits for what was made
	}
	if f != nil && c.undo != nil {
		c.undo()
		c.undo = nil
	}
	p.Metrics.observe(r, f, p.Now().Sub(c.started))
	if f == nil {
		return receipt, nil
	}
	wipe(reply)
	f = f.WithRequestID(c.requestID())
	if f.Reason == fault.Internal || f.Reason == fault.AuditUnavailable || f.Reason == fault.StoreUnavailable {
		p.Logger.ErrorContext(ctx, "call failed", "method", r.Method, "request_id", f.RequestID(), "error", f)
	}
	return receipt, f
}

func (p *Pipeline) serve(ctx context.Context, c *call, e *authn.Evidence, req, reply proto.Message) (audit.Receipt, *fault.Error) {
	if p.inFlight.Add(1) > int64(p.MaxInFlight) {
		p.inFlight.Add(-1)
		return p.refuse(c, fault.New(fault.Overloaded, ""))
	}
	defer p.inFlight.Add(-1)

	c.evidence, c.shown = e.Fingerprint(), e
	caller, err := p.Authenticator.Caller(e)
	if err != nil {
		return p.refuse(c, fault.From(err))
	}
	c.setCaller(caller)
	// What the request is about is read before narrowing, so that the record of a
	// person's attempt says what they tried to reach.
	malformed := c.route.subject(req, &c.subject)
	c.record.Resource, c.record.Change = c.subject.recordName(), c.subject.change
	if f := c.route.narrow(caller); f != nil {
		return p.finish(ctx, c, f)
	}
	if malformed != nil {
		return p.finish(ctx, c, Reason(malformed))
	}
	if f := p.authorize(c); f != nil {
		return p.finish(ctx, c, f)
	}
	if c.route.Effect {
		if _, f := p.record(ctx, c, auditv1.Phase_PHASE_INTENT); f != nil {
			return audit.Receipt{}, f
		}
	}
	if err := c.route.act(ctx, c, req, reply); err != nil {
		if c.route.Action.DataPlane() {
			return p.finish(ctx, c, DataPlaneReason(err))
		}
		return p.finish(ctx, c, Reason(err))
	}
	if c.undo != nil {
		// Whoever was disabled or revoked in the meantime has lost what it held; what was
		// made after that goes the same way.
		if _, err := p.Authenticator.Caller(e); err != nil {
			return p.finish(ctx, c, fault.From(err))
		}
	}
	return p.finish(ctx, c, nil)
}

// finish writes the record that the reply waits for. Its own failure takes the
// place of f: without a record there is nothing to answer with.
func (p *Pipeline) finish(ctx context.Context, c *call, f *fault.Error) (audit.Receipt, *fault.Error) {
	phase := auditv1.Phase_PHASE_CALL
	if c.route.Effect && c.record.Phase == auditv1.Phase_PHASE_INTENT {
		// The deed is done: its outcome is written even if the caller went away.
		phase, ctx = auditv1.Phase_PHASE_OUTCOME, context.WithoutCancel(ctx)
		c.setTime(p.Now())
	}
	if f != nil {
		c.record.Reason = f.Reason.String()
	}
	receipt, unrecorded := p.record(ctx, c, phase)
	if unrecorded != nil {
		return audit.Receipt{}, unrecorded
	}
	return receipt, f
}

func (p *Pipeline) record(ctx context.Context, c *call, phase auditv1.Phase) (audit.Receipt, *fault.Error) {
	c.record.Phase = phase
	receipt, err := p.Log.Append(ctx, &c.record)
	if err != nil {
		return audit.Receipt{}, Reason(err)
	}
	return receipt, nil
}

// refuse counts a refusal of somebody we do not know, to be recorded in aggregate:
// strangers must not be able to fill the log.
func (p *Pipeline) refuse(c *call, f *fault.Error) (audit.Receipt, *fault.Error) {
	if knownCaller(f.Reason) {
		c.record.CallerKind = auditv1.CallerKind_CALLER_KIND_UNKNOWN
		c.record.Decision = auditv1.Decision_DECISION_DENY
		return p.finish(context.Background(), c, f)
	}
	p.refusals.add(c.route, f.Reason)
	return audit.Receipt{}, f
}

// authorize asks policy, once for each distinct encryption context.
func (p *Pipeline) authorize(c *call) *fault.Error {
	s := &c.subject
	request := policy.Request{
		Principal: p.principals.of(c.caller), Action: c.route.Action, Resource: s.Resource,
		Context: policy.Context{
			Tenant: string(s.tenant), Standing: policy.StandingActive, Chain: policy.ChainHuman,
			Time: c.started.Unix(),
		},
	}
	if _, ok := c.caller.(identity.Workload); ok {
		request.Context.Chain = policy.ChainMachine
	}
	if s.faults == nil {
		if len(s.encryption) == 1 {
			request.Context.Encryption = s.encryption[0]
		}
		d := p.Policy.Decide(request)
		c.noteDecision(d)
		if !d.Allow {
			return fault.New(fault.PermissionDenied, "")
		}
		return nil
	}
	decided := map[[32]byte]policy.Decision{}
	for i, f := range s.faults {
		if f != nil {
			continue
		}
		digest := s.contexts[i].Digest()
		d, known := decided[digest]
		if !known {
			request.Context.Encryption = s.encryption[i]
			d = p.Policy.Decide(request)
			decided[digest] = d
		}
		if !d.Allow {
			s.faults[i] = fault.New(fault.PermissionDenied, "")
		}
		if d.Allow || c.record.GetDecision() == auditv1.Decision_DECISION_UNSPECIFIED {
			c.noteDecision(d)
		}
	}
	return s.allFaulty()
}

// DataPlaneReason is Reason, except that the data plane does not tell a keyring
// that does not exist from one that is forbidden.
func DataPlaneReason(err error) *fault.Error {
	f := Reason(err)
	if f.Reason == fault.NotFound {
		return fault.Wrap(fault.PermissionDenied, "", err)
	}
	return f
}

// begin makes the call new.
func (c *call) begin(r *Route, now time.Time) {
	c.route, c.started = r, now
	c.setTime(now)
	_, _ = rand.Read(c.id[:]) // never fails (crypto/rand)
	c.record.RequestId = c.id[:]
	c.record.Time = &c.time
	c.record.Action = string(r.Method)
}

func (c *call) setTime(t time.Time) {
	c.time.Seconds, c.time.Nanos = t.Unix(), int32(t.Nanosecond())
}

// end forgets everything about the call.
func (c *call) end() {
	c.route, c.caller, c.shown, c.undo = nil, nil, nil, nil
	c.again, c.scheduled = again{}, time.Time{}
	c.subject = Subject{}
	c.record.Reset()
}

func (c *call) setCaller(caller identity.Caller) {
	c.caller = caller
	c.record.Caller = caller.Name()
	c.record.EvidenceDigest = c.evidence[:]
	c.record.Decision = auditv1.Decision_DECISION_DENY
	switch caller.(type) {
	case identity.Workload:
		c.record.CallerKind = auditv1.CallerKind_CALLER_KIND_WORKLOAD
	case identity.Human:
		c.record.CallerKind = auditv1.CallerKind_CALLER_KIND_HUMAN
	}
}

func (c *call) noteDecision(d policy.Decision) {
	c.record.Decision = auditv1.Decision_DECISION_DENY
	if d.Allow {
		c.record.Decision = auditv1.Decision_DECISION_ALLOW
	}
	c.record.Policies = d.Policies
	c.record.PolicyRevision = d.Revision
	if s := &c.subject; s.faults == nil && len(s.contexts) == 1 {
		c.record.Context = c.pipeline.pseudonyms.hash(c.record.Context, s.Keyring.Tenant, s.contexts[0])
	}
}

// wipe clears what a reply that will not leave holds.
func wipe(reply proto.Message) {
	WipePlaintext(reply)
	proto.Reset(reply)
}
