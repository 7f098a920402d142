package vault

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sallyport/sallyport/crypto/secret"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// usesKey is where a child token's metadata says how many uses it was made with, so
// that it can be told whether it was used.
const usesKey = "sallyport_uses"

// Prepare implements lease.Source: it makes the child token.
func (s *Source) Prepare(ctx context.Context, o lease.Order) (lease.Ticket, error) {
	p, err := planOf(o.Role.Parameters)
	if err != nil {
		return nil, err
	}
	longest := max(o.MaxLifetime, 0).Truncate(time.Second)
	lifetime := min(o.Lifetime.Truncate(time.Second), longest)
	switch {
	case lifetime < time.Second:
		return nil, fault.New(fault.InvalidArgument, "lifetime must be at least one second")
	case lifetime < p.least:
		return nil, fault.New(fault.InvalidArgument, "lifetime must be at least 15 minutes: AWS gives no less")
	}
	policy := s.policyName(o.Role.Name)
	renewable := p.renewable && o.Role.Renewable && lifetime < longest
	began := s.clock.Now()
	a, err := s.ask(ctx, call{
		method: http.MethodPut, path: "auth/token/create/" + s.config.TokenRole,
		body: fields(map[string]any{
			"policies": []string{policy}, "no_default_policy": true, "type": "service", "num_uses": p.uses(),
			"ttl": seconds(lifetime), "explicit_max_ttl": seconds(longest), "renewable": renewable, "display_name": "sallyport",
			"meta": map[string]string{
				"sallyport_lease": o.Lease.String(), "sallyport_workload": o.Workload, usesKey: strconv.Itoa(p.uses()),
			},
		}),
	})
	if err != nil {
		return nil, err
	}
	defer a.wipe()
	t := &ticket{source: s, plan: p, lifetime: lifetime, now: o.Now, began: began, last: o.Now.Add(longest)}
	if err := t.fill(a, policy); err != nil {
		t.claim().Wipe()
		s.discard(ctx, t.accessor)
		return nil, err
	}
	return t, nil
}

// seconds is how Vault is told of a duration. What is less than a second is cut off
// before: the lease may end early, never late.
func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) + "s" }

// discard ends a child token that nothing came of. If that fails, the token ends by
// itself, and nothing hangs on it.
func (s *Source) discard(ctx context.Context, accessor string) {
	if !cleanAccessor(accessor) {
		return
	}
	a, _ := s.ask(ctx, call{method: http.MethodPut, path: "auth/token/revoke-accessor", body: fields(map[string]any{"accessor": accessor})})
	a.wipe()
}

// ticket is a child token that has not been used.
type ticket struct {
	source   *Source
	plan     plan
	accessor string
	lifetime time.Duration
	// now is the gateway's time, and began ours, before the token was asked for.
	now, began time.Time
	// end is the token's, last the lease's that no renewal passes.
	end, last time.Time
	renewable bool

	mu    sync.Mutex
	token secret.Bytes
}

// fill takes the token out of Vault's answer, and checks that it is what was asked
// for: a token role that somebody has configured otherwise gives something else, and
// no error.
func (t *ticket) fill(a answer, policy string) error {
	auth, err := authOf(a)
	if err != nil {
		return err
	}
	bad := malformed("Vault's answer tells of no child token")
	if t.accessor, err = auth.object["accessor"].name(); err != nil || !cleanAccessor(t.accessor) {
		return bad
	}
	if t.token, err = auth.take(); err != nil {
		return err
	}
	policies, err := names(auth.object["policies"])
	if err != nil {
		return bad
	}
	orphan, err1 := auth.object["orphan"].flag()
	uses, err2 := auth.object["num_uses"].number()
	kind, err3 := auth.object["token_type"].name()
	if err := firstOf(err1, err2, err3); err != nil {
		return bad
	}
	wrong := func(detail string) error { return fault.New(fault.SourceRefused, "Vault's token role "+detail) }
	switch {
	case !orphan:
		return wrong("must have orphan=true: a lease must not end with the gateway's token")
	case kind != "service":
		return wrong("must have token_type=service")
	case !slices.Equal(policies, []string{policy}):
		return wrong("must give child tokens one policy: set token_no_default_policy=true")
	case uses != int64(t.plan.uses()):
		return wrong("must leave the number of uses alone: set token_num_uses=0")
	case auth.ttl < time.Second || auth.ttl > t.lifetime:
		return wrong("must not lengthen lives: set token_period=0")
	}
	t.end, t.renewable = t.now.Add(auth.ttl), auth.renewable
	return nil
}

func names(e element) ([]string, error) {
	all, err := e.elements()
	if err != nil {
		return nil, err
	}
	list := make([]string, len(all))
	for i, item := range all {
		if list[i], err = item.name(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Anchor implements lease.Ticket.
func (t *ticket) Anchor() lease.Anchor { return lease.Anchor{Handle: t.accessor} }

// Discard implements lease.Ticket.
func (t *ticket) Discard(ctx context.Context) {
	if token := t.claim(); !token.Wiped() {
		token.Wipe()
		t.source.discard(ctx, t.accessor)
	}
}

// claim gives the token to the one who uses it.
func (t *ticket) claim() secret.Bytes {
	t.mu.Lock()
	defer t.mu.Unlock()
	token := t.token
	t.token = secret.Bytes{}
	return token
}

// Issue implements lease.Ticket. It asks once: an answer that was lost may have been
// given.
func (t *ticket) Issue(ctx context.Context) (lease.Issued, error) {
	token := t.claim()
	defer token.Wipe()
	if token.Wiped() {
		return lease.Issued{}, fault.New(fault.LeaseGone, "the ticket was used")
	}
	waited := t.source.clock.Now().Sub(t.began)
	if waited > t.source.config.Timeout { // see settled
		t.source.discard(ctx, t.accessor)
		return lease.Issued{}, fault.New(fault.SourceUnavailable, "writing the lease down took too long")
	}
	c := &call{method: http.MethodGet, path: t.plan.path, token: token, backend: true, mute: true, lasting: t.plan.leased}
	if t.plan.write {
		body := maps.Clone(t.plan.body)
		if t.plan.ttl {
			body["ttl"] = seconds(t.lifetime)
		}
		all := map[string]any{}
		for k, v := range body {
			all[k] = v
		}
		c.method, c.body = http.MethodPut, fields(all)
	}
	// The end is reckoned from before the call: Vault begins to count after it.
	now := t.now.Add(waited)
	a, err := t.source.send(ctx, c)
	if err != nil {
		if definite(err) || fault.From(err).Reason == fault.SourceMalformed {
			// Nothing is under way any more, so the token can go at once.
			t.source.discard(ctx, t.accessor)
		}
		return lease.Issued{}, err
	}
	defer a.wipe()
	issued, err := t.read(a, now)
	if err != nil {
		// It exists, and nobody will get it. If ending it fails, whoever holds the anchor
		// tries again.
		if issued.Ref == "" {
			t.source.discard(ctx, t.accessor)
		} else {
			_ = t.source.Revoke(ctx, lease.Anchor{Handle: t.accessor, Ref: issued.Ref})
		}
		return lease.Issued{}, err
	}
	return issued, nil
}

// read takes the credential out of an answer. An error comes with the reference, if
// there is one.
func (t *ticket) read(a answer, now time.Time) (lease.Issued, error) {
	top, err := parse(a.text)
	if err != nil {
		return lease.Issued{}, malformed("Vault's answer is not JSON as we know it")
	}
	data, err := top["data"].object()
	if err != nil {
		return lease.Issued{}, malformed("Vault's answer has no data")
	}
	issued := lease.Issued{Expires: earliest(t.end, t.last), Revocable: t.plan.revocable}
	if t.plan.metadata != "" {
		if data, issued.Version, err = versioned(data); err != nil {
			return lease.Issued{}, err
		}
	}
	if t.plan.leased {
		if err := t.readLease(top, now, &issued); err != nil {
			return issued, err
		}
	}
	issued.Value, err = t.plan.take(data)
	return issued, err
}

// readLease takes the lease out of an answer.
func (t *ticket) readLease(top object, now time.Time, issued *lease.Issued) error {
	ref, err1 := top["lease_id"].name()
	ttl, err2 := top["lease_duration"].number()
	renewable, err3 := top["renewable"].flag()
	switch {
	case firstOf(err1, err2, err3) != nil || ttl > maxSeconds || ref != "" && !cleanRef(ref):
		return malformed("Vault's answer has no lease as we know it")
	case ref == "":
		return malformed("Vault's answer has no lease; the role of a PKI engine needs generate_lease=true")
	}
	issued.Ref, issued.Renewable = ref, renewable && t.renewable && t.plan.renewable
	if ttl == 0 {
		return nil // it ends with the token
	}
	end := now.Add(time.Duration(ttl) * time.Second)
	if t.plan.bound && end.After(t.last.Add(boundSlack)) {
		return fault.New(fault.SourceRefused, "the credential would live longer than was asked for, and cannot be revoked")
	}
	issued.Expires = earliest(issued.Expires, end)
	return nil
}

// boundSlack is what a call takes at most: the end of a credential that cannot be
// revoked is counted from when it was made.
const boundSlack = 30 * time.Second

// versioned takes the secret and its version out of what KV answers.
func versioned(data object) (object, uint64, error) {
	metadata, err := data["metadata"].object()
	if err != nil {
		return nil, 0, malformed("Vault's answer has no version: the engine must be KV version 2")
	}
	version, err := metadata["version"].number()
	if err != nil || version == 0 {
		return nil, 0, malformed("Vault's answer has no version: the engine must be KV version 2")
	}
	inner, err := data["data"].object()
	if err != nil {
		return nil, 0, malformed("Vault's answer has no data")
	}
	return inner, uint64(version), nil
}

// Newest implements lease.Source.
func (s *Source) Newest(ctx context.Context, p *controlv1.SecretParameters) (uint64, error) {
	plan, err := planOf(p)
	if err != nil || plan.metadata == "" {
		return 0, err
	}
	a, err := s.ask(ctx, call{method: http.MethodGet, path: plan.metadata})
	if err != nil {
		return 0, err
	}
	defer a.wipe()
	bad := malformed("Vault's answer tells of no version")
	top, err := parse(a.text)
	if err != nil {
		return 0, bad
	}
	data, err := top["data"].object()
	if err != nil {
		return 0, bad
	}
	current, err := data["current_version"].number()
	if err != nil || current == 0 {
		return 0, bad
	}
	all, err := data["versions"].object()
	if err != nil {
		return 0, bad
	}
	newest, err := all[strconv.FormatInt(current, 10)].object()
	if err != nil {
		return 0, bad
	}
	destroyed, err1 := newest["destroyed"].flag()
	deleted, err2 := newest["deletion_time"].name()
	switch {
	case firstOf(err1, err2) != nil:
		return 0, bad
	case destroyed, deleted != "" && past(deleted, s.clock.Now()):
		return 0, fault.New(fault.SourceRefused, "the newest version of the secret is deleted")
	}
	return uint64(current), nil
}

// past reports whether a time has come, or is none that we can read. A time in the
// future is that of a version which deletes itself.
func past(text string, now time.Time) bool {
	at, err := time.Parse(time.RFC3339Nano, text)
	return err != nil || !now.Before(at)
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
