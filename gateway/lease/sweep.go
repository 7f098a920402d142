package lease

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/gateway/fault"
)

// How the sweeper goes about it.
const (
	// sweepInterval is how often due rows are looked for.
	sweepInterval = time.Second
	// sweepBatch is how many rows are read at once, and sweepers how many are worked on
	// at once.
	sweepBatch = 256
	sweepers   = 32
	// attemptTimeout bounds one try to end or to inspect a credential, and the wait for a
	// place before it.
	attemptTimeout = 15 * time.Second
	// The time between tries doubles from the first to the last.
	firstBackoff, lastBackoff = time.Second, 5 * time.Minute
)

// Deed is something that the book does by itself, for the record.
type Deed struct {
	Lease Lease
	// What is one of the constants below.
	What string
}

// The deeds.
const (
	DeedRevoke = "revoke" // an effect: intended before, done after
	DeedEnd    = "end"    // a credential's own end was confirmed
	DeedAdopt  = "adopt"  // a credential lives longer than the ledger knew
)

// Notes is where deeds are recorded. Intend comes before an effect, and Done after it
// with what came of it. Ending a credential is not held up by a log that fails: those
// who implement it report that by themselves.
type Notes interface {
	Intend(ctx context.Context, d Deed)
	Done(ctx context.Context, d Deed, err error)
}

// Wake makes the sweeper look now.
func (b *Book) Wake() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Run sweeps until the context ends.
func (b *Book) Run(ctx context.Context, n Notes) {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	b.Settle(ctx)
	for {
		if err := b.Sweep(ctx, n); err != nil && ctx.Err() == nil {
			b.Logger.ErrorContext(ctx, "leases could not be swept and will be tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-b.wake:
		}
	}
}

// Settle makes due what an earlier process left reserved: nobody issues those now. Run begins
// with it.
func (b *Book) Settle(ctx context.Context) {
	q := Query{State: StateReserved, Limit: sweepBatch}
	for {
		page, err := b.Ledger.Leases(ctx, q)
		if err != nil {
			b.Logger.ErrorContext(ctx, "what was left reserved is settled later", "error", err)
			return
		}
		for _, l := range page {
			if l.Created.Before(b.started) {
				l.Due = b.Clock.Now()
				_ = b.update(ctx, &l) // else it is due at its own time
			}
		}
		if len(page) < q.Limit {
			return
		}
		last := page[len(page)-1]
		q.After = Cursor{last.Created, last.Name.ID}
	}
}

// Sweep does once what is due now.
func (b *Book) Sweep(ctx context.Context, n Notes) error {
	b.endUnended(ctx)
	for {
		due, err := b.Ledger.Due(ctx, b.Clock.Now(), sweepBatch)
		if err != nil {
			return err
		}
		// Whatever was due has another Due now, unless the store fails: then the rest
		// waits for the next sweep.
		if settled := b.tendAll(ctx, due, n); !settled || len(due) < sweepBatch || ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// tendAll works on rows, some at once. It reports false if one of them is due as
// before.
func (b *Book) tendAll(ctx context.Context, due []Lease, n Notes) bool {
	work := make(chan Lease)
	var unsettled atomic.Bool
	var wg sync.WaitGroup
	for range min(sweepers, len(due)) {
		wg.Go(func() {
			for l := range work {
				if err := b.tend(ctx, l, n); errors.Is(err, ErrStore) {
					unsettled.Store(true)
				}
			}
		})
	}
	for _, l := range due {
		work <- l
	}
	close(work)
	wg.Wait()
	return !unsettled.Load()
}

func (b *Book) endUnended(ctx context.Context) {
	b.mu.Lock()
	names := make([]Name, 0, len(b.unended))
	for n := range b.unended {
		names = append(names, n)
	}
	b.mu.Unlock()
	for _, n := range names {
		if b.abandon(ctx, n) == nil {
			b.mu.Lock()
			delete(b.unended, n)
			b.mu.Unlock()
		}
	}
}

// tend does what one due row needs.
func (b *Book) tend(ctx context.Context, l Lease, n Notes) (err error) {
	switch l.State {
	case StateReserved:
		if !l.Created.After(b.Restored) {
			err = b.inspect(ctx, l, n)
		} else if l, _, err = b.decide(ctx, l); err == nil && l.State == StateRevoking {
			err = b.end(ctx, l, n)
		}
	case StateActive:
		if l.Revocable {
			err = b.inspect(ctx, l, n)
		} else {
			err = b.gone(ctx, l, n)
		}
	case StateRevoking, StateStuck:
		err = b.end(ctx, l, n)
	case StateGone:
		err = b.Ledger.Forget(ctx, l)
	}
	if err != nil && !errors.Is(err, ErrConflict) && ctx.Err() == nil {
		b.Logger.WarnContext(ctx, "a lease waits for the next sweep", "lease", l, "error", err)
	}
	return err
}

// inspect asks the source about a credential whose end the ledger says has come. It
// never ends one that lives within its bounds: a renewal may have been lost on its way
// to the ledger, or the ledger be a backup.
func (b *Book) inspect(ctx context.Context, l Lease, n Notes) error {
	var s Standing
	tried, err := b.atSource(ctx, l, "inspect", (*turnstile).wait, func(ctx context.Context, source Source) (err error) {
		s, err = source.Inspect(ctx, l.Anchor)
		return err
	})
	if !tried {
		return b.putOff(ctx, &l, err)
	}
	now := b.Clock.Now()
	beyond := now.After(l.MaxExpires.Add(b.Limits.Margin))
	switch {
	case err == nil && !s.Alive:
		if l.State == StateReserved {
			l.State = StateRevoking // a reserved row is gone by way of revoking
			if err := b.update(ctx, &l); err != nil {
				return err
			}
		}
		return b.gone(ctx, l, n)
	case beyond:
		// It lives beyond every bound, or nobody can tell: end it.
		_, _, err := b.decide(ctx, l)
		return err
	case err != nil:
		return b.failed(ctx, l, err)
	}
	l.State, l.Failures, l.Failure = StateActive, 0, ""
	l.Expires = earlier(s.Until, l.MaxExpires)
	// Not at once again: what is about to end by itself needs a moment for it.
	l.Due = later(l.Expires, now.Add(firstBackoff))
	if err := b.update(ctx, &l); err != nil {
		return err
	}
	n.Done(ctx, Deed{l, DeedAdopt}, nil)
	return nil
}

// end tries to end a credential, and records the first try and the one that came to
// something.
func (b *Book) end(ctx context.Context, l Lease, n Notes) error {
	if !l.Revocable && !l.Expires.After(b.Clock.Now()) {
		return b.gone(ctx, l, n)
	}
	if l.Failures == 0 {
		n.Intend(ctx, Deed{l, DeedRevoke})
	}
	ended, err := b.attempt(ctx, l, (*turnstile).wait)
	if err == nil || ended.State == StateStuck && l.State != StateStuck {
		n.Done(ctx, Deed{ended, DeedRevoke}, err)
	}
	return err
}

// attempt tries once to end a credential, and writes down what came of it.
func (b *Book) attempt(ctx context.Context, l Lease, enter entry) (Lease, error) {
	tried, err := b.atSource(ctx, l, "revoke", enter, func(ctx context.Context, source Source) error { return source.Revoke(ctx, l.Anchor) })
	if err != nil {
		if !tried {
			return l, b.putOff(ctx, &l, err)
		}
		if ctx.Err() != nil {
			return l, ctx.Err()
		}
		l.Failures, l.Failure = l.Failures+1, fault.From(err).Reason.String()
		now := b.Clock.Now()
		l.Due = now.Add(backoff(l.Failures))
		if now.After(l.Expires.Add(b.Limits.Margin)) {
			l.State = StateStuck
		}
		return l, errors.Join(err, b.update(ctx, &l))
	}
	l.State, l.Failures, l.Failure = StateGone, 0, ""
	l.Due = b.Clock.Now().Add(b.Limits.Keep)
	return l, b.update(ctx, &l)
}

// gone writes down that a credential has ended by itself.
func (b *Book) gone(ctx context.Context, l Lease, n Notes) error {
	l.State, l.Due = StateGone, b.Clock.Now().Add(b.Limits.Keep)
	if err := b.update(ctx, &l); err != nil {
		return err
	}
	n.Done(ctx, Deed{l, DeedEnd}, nil)
	return nil
}

// failed puts a row off whose source did not answer.
func (b *Book) failed(ctx context.Context, l Lease, cause error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	l.Failures, l.Failure = l.Failures+1, fault.From(cause).Reason.String()
	l.Due = b.Clock.Now().Add(backoff(l.Failures))
	return errors.Join(cause, b.update(ctx, &l))
}

// putOff lets others go first where no place at the source was free for long: a source
// that hangs does not hold up the ends of leases of others. It is no failed try.
func (b *Book) putOff(ctx context.Context, l *Lease, cause error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	l.Due = b.Clock.Now().Add(firstBackoff)
	return errors.Join(cause, b.update(ctx, l))
}

// atSource calls the lease's source, from one of the places that are kept for ending
// leases: enter is how to get one. Without one, tried is false, which says nothing about
// the credential.
func (b *Book) atSource(ctx context.Context, l Lease, verb string, enter entry, call func(context.Context, Source) error) (tried bool, err error) {
	source := b.Sources[l.Source]
	if source == nil {
		return true, fault.New(fault.SourceRefused, "the source is not configured any more")
	}
	waiting, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	leave, err := enter(b.gates[l.Source].end, waiting, l.Workload)
	if err != nil {
		return false, err
	}
	defer leave()
	ctx, cancel = context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	defer b.clocked(l.Source, verb)()
	return true, call(ctx, source)
}

// backoff is the time until the next try, with up to half of it taken away at random.
func backoff(failures uint32) time.Duration {
	d := lastBackoff
	if failures < 16 {
		d = min(lastBackoff, firstBackoff<<(failures-1))
	}
	return d - rand.N(d/2)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
