package keys

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// staleWait is how long a use waits for a load when it could be served with what
	// is there.
	staleWait = time.Second
	// retryPause is the least time between two loads for one value that get no
	// answer; up to as much again is added at random.
	retryPause = time.Second
	// refusalTime is how long an unknown name or a refusal is not asked about again,
	// and refusalEntries how many of them are remembered.
	refusalTime    = 5 * time.Second
	refusalEntries = 4096
)

// resolver turns keys into loaded values of one kind: keyrings, or opened versions.
// It answers from a bounded cache and has at most one load under way for a key. The
// life of a loaded value, from when its load began:
//
//	0 ───────── refreshAt ────── RefreshAfter ──────────────── MaxStaleness
//	│ served     │ served, and a  │ a use waits for a load; if  │ a use waits
//	│            │ load begins    │ that gets no answer, it is  │ for a load and
//	│            │ behind it      │ served with what is there   │ fails with it
//
// After a load without an answer the value is served without waiting, with a new
// attempt behind it from time to time, until one succeeds. A load that is refused
// removes the value at once, and the refusal answers for a short time.
type resolver[K comparable, V any] struct {
	keeper *Keeper
	load   func(context.Context, K) (V, error)
	name   func(K) Name
	cost   func(V) int64

	values   *cache[K, *loaded[V]]
	refusals *cache[K, *refusal]

	mu      sync.Mutex
	flights map[flightKey[K]]*flight[V] // guarded by mu

	hits, misses, staleUses, refreshes atomic.Uint64
}

func (r *resolver[K, V]) init() {
	r.refusals = newCache[K, *refusal](refusalEntries, 1)
	r.flights = map[flightKey[K]]*flight[V]{}
}

// loaded is a value and its life, in time since the keeper began.
type loaded[V any] struct {
	value     V
	end       time.Duration // not served from here on
	refreshAt atomic.Int64
	freshTill atomic.Int64
	failed    atomic.Bool // the last load got no answer
}

// postpone moves the next load behind a use to a pause from now, unless somebody
// else has moved it since it was read as due.
func (l *loaded[V]) postpone(now time.Duration, due int64) bool {
	return l.refreshAt.CompareAndSwap(due, int64(now+retryPause+rand.N(retryPause)))
}

type refusal struct {
	err  error
	till time.Duration
}

// flightKey holds the epoch so that a use that begins after an invalidation does
// not join a load that began before it.
type flightKey[K comparable] struct {
	key   K
	epoch uint64
}

// flight is one load; the fields are set when done is closed.
type flight[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// get returns the value of a key. Waiting ends with the context; the load does not.
func (r *resolver[K, V]) get(ctx context.Context, key K) (V, error) {
	now := r.keeper.elapsed()
	have, _ := r.values.get(key)
	if have == nil || now >= have.end {
		r.misses.Add(1)
		return r.join(key, have).wait(ctx)
	}
	due := have.refreshAt.Load()
	switch {
	case int64(now) < due:
	case have.failed.Load() || int64(now) < have.freshTill.Load():
		if have.postpone(now, due) {
			r.join(key, have)
		}
	default:
		value, err := r.confirm(ctx, key, have)
		if err == nil || ctx.Err() != nil || !unanswered(err) && !errors.Is(err, context.DeadlineExceeded) {
			return value, err
		}
	}
	r.hits.Add(1)
	if int64(now) >= have.freshTill.Load() {
		r.staleUses.Add(1)
	}
	return have.value, nil
}

// confirm waits a short time for a load of what is there already.
func (r *resolver[K, V]) confirm(ctx context.Context, key K, have *loaded[V]) (V, error) {
	ctx, cancel := context.WithTimeout(ctx, staleWait)
	defer cancel()
	return r.join(key, have).wait(ctx)
}

// reload loads the value of a key again, or joins a load under way, unless what is
// there is younger than the given age.
func (r *resolver[K, V]) reload(ctx context.Context, key K, age time.Duration) (V, error) {
	have, _ := r.values.get(key)
	if have != nil && r.keeper.elapsed() < have.end-r.keeper.config.MaxStaleness+age {
		return have.value, nil
	}
	return r.join(key, have).wait(ctx)
}

func (f *flight[V]) wait(ctx context.Context) (value V, err error) {
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		return value, ctx.Err()
	}
}

// join returns the load of a key that is under way, or begins one. The caller says
// what it saw in the cache: if there is something else by now, a load has ended in
// between and its result is returned.
func (r *resolver[K, V]) join(key K, seen *loaded[V]) *flight[V] {
	id := flightKey[K]{key, r.keeper.epoch(r.name(key)).Load()}
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.flights[id]; f != nil {
		return f
	}
	f := &flight[V]{done: make(chan struct{})}
	if have, _ := r.values.get(key); have != nil && have != seen {
		f.value = have.value
		close(f.done)
		return f
	}
	if no, _ := r.refusals.get(key); no != nil && r.keeper.elapsed() < no.till {
		f.err = no.err
		close(f.done)
		return f
	}
	r.flights[id] = f
	if seen != nil {
		r.refreshes.Add(1)
	}
	if !r.keeper.spawn(func() { r.fly(id, f) }) {
		delete(r.flights, id)
		f.err = ErrClosed
		close(f.done)
	}
	return f
}

// fly loads, stores the result and then ends the flight, in this order, so that
// nobody finds neither.
func (r *resolver[K, V]) fly(id flightKey[K], f *flight[V]) {
	began := r.keeper.elapsed()
	f.value, f.err = r.load(r.keeper.ctx, id.key)
	r.settle(id, began, f.value, f.err)
	r.mu.Lock()
	delete(r.flights, id)
	r.mu.Unlock()
	close(f.done)
}

// settle stores the result of a load, unless the name was invalidated meanwhile.
func (r *resolver[K, V]) settle(id flightKey[K], began time.Duration, value V, err error) {
	epoch := r.keeper.epoch(r.name(id.key))
	current := func() bool { return epoch.Load() == id.epoch }
	switch {
	case err == nil:
		fresh := r.keeper.config.RefreshAfter
		l := &loaded[V]{value: value, end: began + r.keeper.config.MaxStaleness}
		// At 70 to 90 % of its time: early enough that a value in use is not waited
		// for, and not together with what was loaded together.
		l.refreshAt.Store(int64(began + fresh*9/10 - rand.N(fresh/5+1)))
		l.freshTill.Store(int64(began + fresh))
		r.values.put(id.key, l, r.cost(value), current)
	case unanswered(err) || errors.Is(err, context.Canceled):
		if have, _ := r.values.get(id.key); have != nil {
			have.failed.Store(true)
			have.postpone(r.keeper.elapsed(), have.refreshAt.Load())
		}
	default:
		r.values.delete(id.key)
		r.refusals.put(id.key, &refusal{err, r.keeper.elapsed() + refusalTime}, 1, current)
	}
}

// suspect makes the next use of every value that matches wait for a load.
func (r *resolver[K, V]) suspect(match func(V) bool) {
	r.values.each(func(_ K, l *loaded[V]) bool {
		if match(l.value) {
			l.failed.Store(false)
			l.freshTill.Store(0)
			l.refreshAt.Store(0)
		}
		return false
	})
}

// forget removes everything about a name. The epoch has moved on before.
func (r *resolver[K, V]) forget(n Name) {
	r.values.each(func(key K, _ *loaded[V]) bool { return r.name(key) == n })
	r.refusals.each(func(key K, _ *refusal) bool { return r.name(key) == n })
}

// unanswered reports whether an error says only that there was no answer.
func unanswered(err error) bool {
	return errors.Is(err, ErrStore) || errors.Is(err, ErrKEKUnreachable) || errors.Is(err, ErrKEKThrottled)
}
