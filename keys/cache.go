package keys

import (
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// versionsPerEntry bounds the opened versions of one keyring in memory.
const versionsPerEntry = 16

// entry is a keyring in memory. The ring does not change; a change makes another
// entry. Opened versions are added to a map that is replaced, so that readers
// take no lock.
type entry struct {
	ring    Ring
	primary uint32 // 0 for none
	missing bool   // the keyring does not exist
	expires time.Time

	refreshNanos atomic.Int64 // when the next refresh is due
	used         atomic.Bool  // since the clock hand last passed
	mu           sync.Mutex   // held to replace handles
	handles      atomic.Pointer[map[uint32]*Handle]
}

func newEntry(r Ring, now time.Time, refreshAfter, maxStaleness time.Duration) *entry {
	e := &entry{ring: r, expires: now.Add(maxStaleness)}
	e.refreshNanos.Store(now.Add(refreshAfter - rand.N(refreshAfter/5+1)).UnixNano()) //nolint:gosec // spreads load
	for _, v := range r.Versions {
		if v.State == StatePrimary {
			e.primary = v.Number
		}
	}
	e.handles.Store(&map[uint32]*Handle{})
	return e
}

func (e *entry) refreshAt() time.Time { return time.Unix(0, e.refreshNanos.Load()) }

func (e *entry) handle(version uint32) *Handle { return (*e.handles.Load())[version] }

// put adds an opened version. Beyond versionsPerEntry another one makes room.
func (e *entry) put(h *Handle) {
	e.mu.Lock()
	defer e.mu.Unlock()
	old := *e.handles.Load()
	next := make(map[uint32]*Handle, len(old)+1)
	for v, known := range old {
		if v == h.version || len(next) >= versionsPerEntry-1 && v != e.primary {
			wipeLater(known)
			continue
		}
		next[v] = known
	}
	next[h.version] = h
	e.handles.Store(&next)
}

// wipeDelay is longer than any call that can hold a handle.
const wipeDelay = time.Minute

// wipeLater wipes a handle when no call can be using it any more.
func wipeLater(h *Handle) { time.AfterFunc(wipeDelay, h.wipe) }

func (e *entry) wipeLater() {
	for _, h := range *e.handles.Load() {
		wipeLater(h)
	}
}

// cache holds entries, bounded in number. It is sharded, so that readers on many
// cores do not meet on one lock; each shard evicts by the CLOCK algorithm
// (Corbató 1968), which needs no write lock for a hit.
type cache struct {
	seed      maphash.Seed
	shards    []shard
	evictions atomic.Uint64
}

type shard struct {
	mu      sync.RWMutex
	entries map[Name]*entry
	ring    []Name // of the clock
	hand    int
	max     int
	// epoch counts the drops: what was read before one is not kept after it.
	epoch uint64
}

const maxShards = 64

func newCache(entries int) *cache {
	n := min(maxShards, max(1, entries/16))
	c := &cache{seed: maphash.MakeSeed(), shards: make([]shard, n)}
	for i := range c.shards {
		c.shards[i] = shard{entries: map[Name]*entry{}, max: max(1, entries/n)}
	}
	return c
}

func (c *cache) shard(n Name) *shard {
	return &c.shards[maphash.Comparable(c.seed, n)%uint64(len(c.shards))]
}

func (c *cache) get(n Name) (*entry, bool) {
	s := c.shard(n)
	s.mu.RLock()
	e, ok := s.entries[n]
	s.mu.RUnlock()
	if ok && !e.used.Load() {
		e.used.Store(true)
	}
	return e, ok
}

// epoch is to be read before the store is, and given to put.
func (c *cache) epoch(n Name) uint64 {
	s := c.shard(n)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.epoch
}

// put keeps an entry that was read in the given epoch, and reports whether it
// did: not if something of the shard was dropped since.
func (c *cache) put(n Name, e *entry, epoch uint64) bool {
	s := c.shard(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch != epoch {
		return false
	}
	if old, ok := s.entries[n]; ok {
		old.wipeLater()
		s.entries[n] = e
		return true
	}
	if len(s.entries) < s.max {
		s.ring = append(s.ring, n)
	} else {
		s.makeRoom(n)
		c.evictions.Add(1)
	}
	s.entries[n] = e
	return true
}

// makeRoom gives the slot of an entry that was not used since the hand last passed
// to n.
func (s *shard) makeRoom(n Name) {
	for {
		old := s.ring[s.hand]
		e, ok := s.entries[old]
		if !ok || !e.used.Swap(false) {
			if ok {
				e.wipeLater()
				delete(s.entries, old)
			}
			s.ring[s.hand] = n
			s.hand = (s.hand + 1) % len(s.ring)
			return
		}
		s.hand = (s.hand + 1) % len(s.ring)
	}
}

func (c *cache) drop(n Name) {
	s := c.shard(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	if e, ok := s.entries[n]; ok {
		e.wipeLater()
		delete(s.entries, n)
		for i, name := range s.ring {
			if name == n {
				s.ring[i] = s.ring[len(s.ring)-1]
				s.ring = s.ring[:len(s.ring)-1]
				s.hand = 0
				break
			}
		}
	}
}

func (c *cache) len() int {
	total := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		total += len(s.entries)
		s.mu.RUnlock()
	}
	return total
}

// wipe wipes everything at once: nothing may be using it.
func (c *cache) wipe() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for n, e := range s.entries {
			for _, h := range *e.handles.Load() {
				h.wipe()
			}
			delete(s.entries, n)
		}
		s.ring, s.hand = nil, 0
		s.mu.Unlock()
	}
}
