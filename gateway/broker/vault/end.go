package vault

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
)

var accessorGrammar = regexp.MustCompile(`^[A-Za-z0-9._-]{1,256}$`)

func cleanAccessor(s string) bool { return accessorGrammar.MatchString(s) }

// cleanRef reports whether s can be a lease id: a path, which goes into URLs.
func cleanRef(s string) bool { return cleanPath(s) }

// checkAnchor refuses what no ticket of ours had as its anchor.
func checkAnchor(a lease.Anchor) error {
	if !cleanAccessor(a.Handle) || a.Ref != "" && !cleanRef(a.Ref) {
		return fault.New(fault.SourceRefused, "the anchor is not one of Vault's")
	}
	return nil
}

// unconfirmed is what Revoke says as long as it does not know.
func unconfirmed(cause error) error {
	return fault.Wrap(fault.SourceUnavailable, "Vault has not confirmed the end of the credential", cause)
}

// Renew implements lease.Source. Both the child token and the lease are renewed, and
// the credential ends with the one that ends first.
func (s *Source) Renew(ctx context.Context, a lease.Anchor, lifetime time.Duration, last time.Time) (time.Time, error) {
	if err := checkAnchor(a); err != nil {
		return time.Time{}, err
	}
	if a.Ref == "" {
		return time.Time{}, fault.New(fault.LeaseNotRenewable, "")
	}
	now := s.clock.Now()
	increment := int64(min(lifetime, last.Sub(now)) / time.Second)
	if increment < 1 {
		return time.Time{}, fault.New(fault.LeaseGone, "")
	}
	token, err := s.ask(ctx, call{method: http.MethodPut, path: "auth/token/renew-accessor", body: fields(map[string]any{
		"accessor": a.Handle, "increment": strconv.FormatInt(increment, 10) + "s",
	})})
	if err != nil {
		return time.Time{}, s.tokenRenewFault(ctx, a, err)
	}
	defer token.wipe()
	auth, err := authOf(token)
	if err != nil {
		return time.Time{}, err
	}
	renewed, err := s.ask(ctx, call{
		method: http.MethodPut, path: "sys/leases/renew/" + a.Ref, backend: true,
		body: fields(map[string]any{"increment": increment}),
	})
	if err != nil {
		return time.Time{}, renewFault(err)
	}
	defer renewed.wipe()
	top, err := parse(renewed.text)
	if err != nil {
		return time.Time{}, malformed("Vault's answer tells of no lease")
	}
	ref, err1 := top["lease_id"].name()
	ttl, err2 := top["lease_duration"].number()
	if firstOf(err1, err2) != nil || ref != a.Ref || ttl > maxSeconds {
		return time.Time{}, malformed("Vault's answer tells of no lease")
	}
	end := earliest(now.Add(auth.ttl), now.Add(time.Duration(ttl)*time.Second))
	return earliest(end, last), nil
}

// tokenRenewFault is renewFault for the child token. The policy may not let us renew
// anything, because no role is renewable.
func (s *Source) tokenRenewFault(ctx context.Context, a lease.Anchor, err error) error {
	if refusalIn(err).status == http.StatusForbidden {
		if t, e := s.lookUpToken(ctx, a.Handle); e == nil && t.gone {
			return fault.Wrap(fault.LeaseGone, "", err)
		} else if e == nil && !t.renewable {
			return fault.Wrap(fault.LeaseNotRenewable, "", err)
		}
	}
	return renewFault(err)
}

// renewFault tells what is gone and what cannot be renewed from what failed.
func renewFault(err error) error {
	r := refusalIn(err)
	switch {
	case tokenIsGone(r), leaseIsGone(r), r.says("lease expired", "lease is expired", "invalid lease ID"):
		return fault.Wrap(fault.LeaseGone, "", err)
	case r.says("not renewable"):
		return fault.Wrap(fault.LeaseNotRenewable, "", err)
	case r.says("failed to renew entry"):
		return fault.Wrap(fault.SourceUnavailable, "what is behind Vault does not renew", err)
	}
	return err
}

func tokenIsGone(r *refusal) bool {
	return r.status < 500 && r.says("invalid accessor", "bad token", "token not found", "No token found")
}

func leaseIsGone(r *refusal) bool {
	return r.status < 500 && r.says("invalid lease", "lease not found")
}

// Revoke implements lease.Source.
//
// The lease goes first, and Vault answers when the database has done it. The token
// goes whatever came of that: then Vault too goes on trying, even if we never come
// back. Vault answers yes to revoking a token when its leases are no more than marked
// as expired, and forgets a token whose leases it cannot revoke, so its word is not
// enough: that both are gone is looked up. Forced revocation, which makes the lease go
// and leaves the account, is never asked for.
func (s *Source) Revoke(ctx context.Context, a lease.Anchor) error {
	if err := checkAnchor(a); err != nil {
		return err
	}
	if a.Ref == "" {
		return s.revokeUnnoted(ctx, a.Handle)
	}
	answer, failed := s.ask(ctx, call{
		method: http.MethodPut, path: "sys/leases/revoke/" + a.Ref, backend: true,
		body: fields(map[string]any{"sync": true}),
	})
	answer.wipe()
	if failed != nil && !definite(failed) {
		return failed // asking for more would take longer and say no more
	}
	// A token that is doomed cannot be used, and nothing but the lease hangs on it.
	switch t, err := s.revokeToken(ctx, a.Handle); {
	case err != nil:
		return err
	case !t.gone && !t.doomed:
		return unconfirmed(nil)
	}
	// The policy may not let us revoke a lease of a role that has changed since. Its end
	// comes with the token's then.
	switch gone, _, err := s.lookUpLease(ctx, a.Ref); {
	case err != nil:
		return err
	case !gone:
		return unconfirmed(failed)
	}
	return nil
}

// revokeUnnoted ends a credential whose lease id we do not know: we crashed, or Vault's
// answer was lost. Vault revokes what the token was given with the token, but if it is
// still making the credential then, it notes it under a token that is gone, and the
// credential lives to the end that its engine gives it (expiration.go: Register does
// not look). So the token stays until no call with it can be under way.
//
// What is confirmed then is that the token is gone and that Vault has durably marked
// its leases as expired. Whether the database has obeyed we cannot ask without the
// lease's id; Vault retries that by itself. And where a lifetime is shorter than
// Vault's request limit, the token may have ended by itself before a call with it did.
// Nobody has the value: it reached us at most, and not the workload.
func (s *Source) revokeUnnoted(ctx context.Context, accessor string) error {
	t, err := s.lookUpToken(ctx, accessor)
	switch {
	case err != nil:
		return err
	case t.gone:
		return nil
	case t.age < s.settled(t):
		return unconfirmed(errors.New("issuing may still be under way"))
	}
	if t, err = s.revokeToken(ctx, accessor); err == nil && !t.gone {
		err = unconfirmed(nil)
	}
	return err
}

// settled is how long after its making a child token's only call is certainly over. The
// call is made within Timeout and given up after another; one that has not reached Vault
// until then does not. On one that has, Vault works no longer than its request limit.
func (s *Source) settled(t standing) time.Duration {
	if t.used {
		return 2*s.config.Timeout + s.config.RequestLimit
	}
	return 2 * s.config.Timeout
}

// revokeToken ends a child token, and looks how it is then.
func (s *Source) revokeToken(ctx context.Context, accessor string) (standing, error) {
	a, err := s.ask(ctx, call{method: http.MethodPut, path: "auth/token/revoke-accessor", body: fields(map[string]any{"accessor": accessor})})
	if err != nil && !tokenIsGone(refusalIn(err)) {
		return standing{}, err
	}
	a.wipe()
	return s.lookUpToken(ctx, accessor)
}

// standing is how a child token is doing.
type standing struct {
	gone, used, renewable bool
	// doomed says that Vault has marked the token as not to be used, and has not ended it.
	// If Vault dies at that moment, it says of the token "not found" to who would revoke it,
	// and ends it and what hangs on it at the end of its life (token_store.go:
	// revokeInternal, lookupInternal).
	doomed bool

	ttl time.Duration
	// age is by Vault's clock, and right if it was never renewed.
	age time.Duration
}

func (s *Source) lookUpToken(ctx context.Context, accessor string) (standing, error) {
	lookUp := func() (answer, error) {
		return s.ask(ctx, call{method: http.MethodPut, path: "auth/token/lookup-accessor", body: fields(map[string]any{"accessor": accessor})})
	}
	a, err := lookUp()
	if r := refusalIn(err); r.status == http.StatusForbidden && !tokenIsGone(r) {
		// A token that ends between Vault's looking for its accessor and for itself is forbidden
		// as if by policy (token_store.go: handleUpdateLookupAccessor). Its accessor is gone then.
		a, err = lookUp()
	}
	if err != nil {
		if tokenIsGone(refusalIn(err)) {
			return standing{gone: true}, nil
		}
		return standing{}, err
	}
	defer a.wipe()
	bad := malformed("Vault's answer tells of no child token")
	top, err := parse(a.text)
	if err != nil {
		return standing{}, bad
	}
	data, err := top["data"].object()
	if err != nil {
		return standing{}, bad
	}
	meta, err := data["meta"].object()
	if err != nil {
		return standing{}, bad
	}
	ttl, err1 := data["ttl"].number()
	life, err2 := data["creation_ttl"].number()
	made, err3 := meta[usesKey].name()
	same, err4 := data["accessor"].name()
	renewable, err5 := data["renewable"].flag()
	if firstOf(err1, err2, err3, err4, err5) != nil || same != accessor || ttl > maxSeconds || life > maxSeconds {
		return standing{}, bad
	}
	left := string(data["num_uses"])
	return standing{
		used: left != made, doomed: strings.HasPrefix(left, "-"), renewable: renewable,
		ttl: time.Duration(ttl) * time.Second, age: time.Duration(life-ttl) * time.Second,
	}, nil
}

func (s *Source) lookUpLease(ctx context.Context, ref string) (gone bool, ttl time.Duration, err error) {
	a, err := s.ask(ctx, call{method: http.MethodPut, path: "sys/leases/lookup", body: fields(map[string]any{"lease_id": ref})})
	if err != nil {
		if leaseIsGone(refusalIn(err)) {
			return true, 0, nil
		}
		return false, 0, err
	}
	defer a.wipe()
	bad := malformed("Vault's answer tells of no lease")
	top, err := parse(a.text)
	if err != nil {
		return false, 0, bad
	}
	data, err := top["data"].object()
	if err != nil {
		return false, 0, bad
	}
	id, err := data["id"].name()
	if err != nil || id != ref {
		return false, 0, bad
	}
	// Below zero if it has expired, and the database has not obeyed yet.
	n, err := data["ttl"].number()
	if err != nil || n > maxSeconds {
		n = 0
	}
	return false, time.Duration(n) * time.Second, nil
}

// Inspect implements lease.Source. A lease that Vault still has is a credential that
// may work, whatever its end: Vault has not been able to revoke it.
func (s *Source) Inspect(ctx context.Context, a lease.Anchor) (lease.Standing, error) {
	if err := checkAnchor(a); err != nil {
		return lease.Standing{}, err
	}
	now := s.clock.Now()
	t, err := s.lookUpToken(ctx, a.Handle)
	if err != nil {
		return lease.Standing{}, err
	}
	until := now.Add(t.ttl)
	if a.Ref == "" {
		return lease.Standing{Alive: !t.gone, Until: until}, nil
	}
	gone, ttl, err := s.lookUpLease(ctx, a.Ref)
	if err != nil || gone {
		return lease.Standing{}, err
	}
	if !t.gone {
		until = earliest(until, now.Add(ttl))
	} else {
		until = now
	}
	return lease.Standing{Alive: true, Until: until}, nil
}
