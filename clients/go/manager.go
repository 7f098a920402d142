package sallyport

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"
)

// KeepOptions are how a secret is kept fresh. The zero value will do.
type KeepOptions struct {
	// Lifetime is that of each lease. Zero means the role's default.
	Lifetime time.Duration
	// Plain asks for values that TLS alone protects; see [Plain].
	Plain bool
	// OnChange, if set, is given each secret that is to take the place of the one before,
	// while that still works if there is any way. When it returns nil the new one is
	// current and, after Grace, the old one is revoked. When it fails the old one stays
	// current, and the new one is offered again, with growing pauses.
	//
	// It is called from the goroutine that keeps the secret, so one call at a time, and
	// must not call Close. Its context ends with the new secret or with Close.
	OnChange func(ctx context.Context, s *Secret) error
	// OnError, if set, is told what failed, for a log. Whatever it is, it is tried again.
	// It is called from the goroutine that keeps the secret.
	OnError func(err error)
	// Grace is how long a secret that was replaced goes on working, for what is under way
	// with it. Zero means 30 seconds, less than zero none.
	Grace time.Duration
}

const (
	defaultGrace = 30 * time.Second
	// keepTimeout bounds getting the first secret, if the caller's context does not. In a
	// storm the gateway itself lets a call wait longer than Options.Timeout.
	keepTimeout = time.Minute
	// closeTimeout bounds Close, likewise.
	closeTimeout = 10 * time.Second
)

// Kept is a secret that is kept fresh: renewed while that is possible, replaced before
// it ends, and revoked by Close. It is safe for concurrent use.
type Kept struct {
	keeper *keeper
	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended
	ending sync.Once

	mu      sync.Mutex
	current *Secret
	over    error // why current is not to be used although it has not ended
	failure error // the last, while there is one
	closed  bool
}

// Keep leases a secret of a role at once and keeps it fresh until Close. While the
// gateway or the source is not there, the first lease is tried for until ctx ends, or
// for a minute if it has no deadline; a refusal is returned at once. The end of ctx
// afterwards does not matter.
//
// The gateway is asked to send replacements as they are due (WatchLease). If that stream
// breaks, it is opened again with growing, jittered pauses, and what the gateway does not
// do in time is asked for from here. What fails is tried again, after a refusal about
// every five minutes.
func (c *Client) Keep(ctx context.Context, role string, o KeepOptions) (*Kept, error) {
	if o.Grace == 0 {
		o.Grace = defaultGrace
	}
	r := c.SecretRole(role)
	first, err := leaseFirst(ctx, r, o)
	if err != nil {
		return nil, err
	}
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k := &Kept{cancel: cancel, done: make(chan struct{}), current: first}
	k.keeper = &keeper{kept: k, role: r, options: o}
	k.keeper.take(first)
	k.keeper.accepted = true
	go func() {
		defer close(k.done)
		k.keeper.run(background)
	}()
	return k, nil
}

// leaseFirst leases until there is an answer.
func leaseFirst(ctx context.Context, r SecretRole, o KeepOptions) (*Secret, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, keepTimeout)
		defer cancel()
	}
	var p pauses
	for {
		s, err := r.Lease(ctx, o.leaseOptions()...)
		var e *Error
		if err == nil || !errors.As(err, &e) || !e.Reason.Temporary() || !wait(ctx, p.next()) {
			return s, err
		}
	}
}

func (o KeepOptions) leaseOptions() []LeaseOption {
	options := []LeaseOption{Lifetime(o.Lifetime)}
	if o.Plain {
		options = append(options, Plain())
	}
	return options
}

// Current gives the secret to use now. It stays usable until Grace after it was
// replaced, and is wiped then: who needs it longer asks again.
//
// The error is LEASE_GONE when there is none: the lease was revoked, or has ended
// without a replacement, or Close was called. It wraps what hindered the replacement.
func (k *Kept) Current() (*Secret, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.closed:
		return nil, &Error{Reason: LeaseGone, Message: "the secret is not kept any more"}
	case k.over != nil:
		return nil, k.none("the lease was revoked and there is no new secret yet")
	case !time.Now().Before(k.current.end()):
		return nil, k.none("the secret has ended and there is no new one yet")
	}
	return k.current, nil
}

// none says that there is no secret, and what is in the way of one.
func (k *Kept) none(message string) error {
	if k.failure != nil {
		message += ": " + strings.TrimPrefix(k.failure.Error(), "sallyport: ")
	}
	return &Error{Reason: LeaseGone, Message: message, cause: errors.Join(k.over, k.failure)}
}

// Close revokes the secret and what came before it, wipes them, and ends what kept them
// fresh. It returns when ctx ends, or after ten seconds if that has no deadline; what is
// not revoked by then ends with its lifetime. Close it before the client.
func (k *Kept) Close(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, closeTimeout)
		defer cancel()
	}
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.cancel()
	select {
	case <-k.done:
	case <-ctx.Done(): // OnChange does not return
		return &Error{Reason: DeadlineExceeded, Message: "the secret is still being changed", cause: ctx.Err()}
	}
	var err error
	k.ending.Do(func() { err = k.keeper.end(ctx) })
	return err
}

// change makes s current, and gives what was.
func (k *Kept) change(s *Secret) (before *Secret) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before, k.current, k.over = k.current, s, nil
	return before
}

// lose notes that the current secret is not to be used any more.
func (k *Kept) lose(why error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.over = why
}

// fail notes what hinders; nil when nothing does any more.
func (k *Kept) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failure = err
}
