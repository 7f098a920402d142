// Package authn turns evidence into an identity. The evidence is taken once per
// connection; who it proves is decided again on every call, from live state, so
// that disabling a workload, revoking a certificate or replacing a trust bundle
// takes effect on the next call of an open connection.
package authn

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/identity"
)

// live is everything that decides who a caller is: immutable, replaced as a whole.
type live struct {
	trust     *Trust
	workloads map[string]Registration // by SPIFFE id
	revoked   map[Fingerprint]struct{}
}

// Authenticator decides who calls. It is safe for concurrent use.
type Authenticator struct {
	register Register
	now      func() time.Time

	mu   sync.Mutex // held to replace live
	live atomic.Pointer[live]
}

// New reads the register whole and trusts what trust says.
func New(ctx context.Context, trust *Trust, register Register, now func() time.Time) (*Authenticator, error) {
	a := &Authenticator{register: register, now: now}
	a.live.Store(&live{trust: trust})
	if err := a.Refresh(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

// Refresh reads the register again. After it returns, every call is judged by what
// it read. On error the state before stays in force.
func (a *Authenticator) Refresh(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	rows, err := a.register.Workloads(ctx, "", 0)
	if err != nil {
		return fmt.Errorf("authn: reading the register: %w", err)
	}
	revocations, err := a.register.Revocations(ctx, Fingerprint{}, 0)
	if err != nil {
		return fmt.Errorf("authn: reading the revocations: %w", err)
	}
	next := &live{
		trust:     a.live.Load().trust,
		workloads: make(map[string]Registration, len(rows)),
		revoked:   make(map[Fingerprint]struct{}, len(revocations)),
	}
	for _, r := range rows {
		next.workloads[r.SPIFFEID] = r
	}
	for _, r := range revocations {
		next.revoked[r.Fingerprint] = struct{}{}
	}
	a.live.Store(next)
	return nil
}

// SetTrust replaces the authorities, for open connections too.
func (a *Authenticator) SetTrust(t *Trust) {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := *a.live.Load()
	next.trust = t
	a.live.Store(&next)
}

// Caller says who the evidence proves, or a *fault.Error. Nil evidence is
// refused.
func (a *Authenticator) Caller(e *Evidence) (identity.Caller, error) {
	if e == nil {
		return nil, fault.New(fault.CertificateUntrusted, "a client certificate is required")
	}
	now, l := a.now(), a.live.Load()
	v := e.verdict.Load()
	if v == nil || v.live != l || now.After(v.notAfter) || now.Before(v.notBefore) {
		v = e.judge(l, now)
		if !now.After(v.notAfter) && !now.Before(v.notBefore) {
			e.verdict.Store(v)
		}
	}
	if v.err != nil {
		return nil, v.err
	}
	return v.caller, nil
}
