package keys

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
)

// ways is how many entries share a set of the cache.
const ways = 8

// cache is a bounded map. Looking up takes no lock and allocates nothing; changes
// lock one set. Each entry states its cost, and when the sum exceeds the limit a
// clock hand evicts entries that were not looked up since it last came by. A set
// that is full evicts among its own, so the bound holds by construction, and the
// limit may in rare cases not be reached.
type cache[K comparable, V any] struct {
	seed    maphash.Seed
	sets    []set[K, V] // a power of two
	limit   int64
	cost    atomic.Int64
	entries atomic.Int64
	evicted atomic.Uint64

	sweep sync.Mutex
	hand  int // guarded by sweep
}

type set[K comparable, V any] struct {
	mu   sync.Mutex // writers
	ways [ways]atomic.Pointer[slot[K, V]]
}

// slot is one entry; all but touched never change.
type slot[K comparable, V any] struct {
	key     K
	value   V
	cost    int64
	touched atomic.Bool // looked up since the hand came by
}

// newCache makes a cache for entries that typically cost as much as given. It has
// twice the room that they need, so that sets rarely fill before the limit does.
func newCache[K comparable, V any](limit, typical int64) *cache[K, V] {
	sets := max(1, 2*limit/typical/ways)
	return &cache[K, V]{
		seed:  maphash.MakeSeed(),
		sets:  make([]set[K, V], 1<<bits.Len64(uint64(sets-1))),
		limit: limit,
	}
}

func (c *cache[K, V]) set(key K) *set[K, V] {
	return &c.sets[maphash.Comparable(c.seed, key)&uint64(len(c.sets)-1)]
}

func (c *cache[K, V]) get(key K) (value V, ok bool) {
	s := c.set(key)
	for i := range s.ways {
		e := s.ways[i].Load()
		if e == nil || e.key != key {
			continue
		}
		if !e.touched.Load() { // do not dirty the cache line of a hot entry
			e.touched.Store(true)
		}
		return e.value, true
	}
	return value, false
}

// put stores an entry, in place of one with the same key, if admit still says so
// when nobody else can change the set.
func (c *cache[K, V]) put(key K, value V, cost int64, admit func() bool) {
	e := &slot[K, V]{key: key, value: value, cost: cost}
	e.touched.Store(true) // a new entry survives the hand once
	s := c.set(key)
	s.mu.Lock()
	if admit() {
		c.replace(s.place(key), e)
	}
	s.mu.Unlock()
	if c.cost.Load() > c.limit {
		c.shrink()
	}
}

// place finds the way for a key: its own, an empty one, or that of an entry that
// gives way. The set's lock is held.
func (s *set[K, V]) place(key K) *atomic.Pointer[slot[K, V]] {
	var empty, idle *atomic.Pointer[slot[K, V]]
	for i := range s.ways {
		w := &s.ways[i]
		switch e := w.Load(); {
		case e == nil:
			empty = w
		case e.key == key:
			return w
		case !e.touched.Swap(false):
			idle = w
		}
	}
	switch {
	case empty != nil:
		return empty
	case idle != nil:
		return idle
	}
	return &s.ways[0]
}

// replace changes one way and the sums; e may be nil. The set's lock is held.
func (c *cache[K, V]) replace(w *atomic.Pointer[slot[K, V]], e *slot[K, V]) {
	old := w.Swap(e)
	if e != nil {
		c.cost.Add(e.cost)
		c.entries.Add(1)
	}
	if old != nil {
		c.cost.Add(-old.cost)
		c.entries.Add(-1)
		if e != nil && e.key != old.key {
			c.evicted.Add(1)
		}
	}
}

// shrink moves the hand until the cost is within the limit. Two rounds suffice: the
// first takes the marks away, the second the entries.
func (c *cache[K, V]) shrink() {
	c.sweep.Lock()
	defer c.sweep.Unlock()
	for range 2*len(c.sets) + 1 {
		if c.cost.Load() <= c.limit {
			return
		}
		c.hand = (c.hand + 1) % len(c.sets)
		s := &c.sets[c.hand]
		s.mu.Lock()
		for i := range s.ways {
			w := &s.ways[i]
			if e := w.Load(); e != nil && !e.touched.Swap(false) && c.cost.Load() > c.limit {
				c.replace(w, nil)
				c.evicted.Add(1)
			}
		}
		s.mu.Unlock()
	}
}

func (c *cache[K, V]) delete(key K) {
	s := c.set(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.ways {
		if w := &s.ways[i]; w.Load() != nil && w.Load().key == key {
			c.replace(w, nil)
		}
	}
}

// each calls f for every entry and removes those for which it returns true. It
// visits the whole table: for control changes, not for requests.
func (c *cache[K, V]) each(f func(key K, value V) (remove bool)) {
	for i := range c.sets {
		s := &c.sets[i]
		s.mu.Lock()
		for j := range s.ways {
			if w := &s.ways[j]; w.Load() != nil && f(w.Load().key, w.Load().value) {
				c.replace(w, nil)
			}
		}
		s.mu.Unlock()
	}
}
