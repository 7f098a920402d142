package keys

import "sync/atomic"

// Stats counts what a Keeper did since it was made.
type Stats struct {
	KEKCalls, KEKFailures uint64 // calls to KEKs, and those that failed
	StoreQueries          uint64 // calls to the store, for the data path and for changes
	Hits, Misses          uint64 // calls for a key that were served from memory, or waited for a load
	StaleUses             uint64 // keyrings and versions served beyond RefreshAfter
	Refreshes             uint64 // loads of what was in memory already
	Evictions             uint64 // keyrings and versions dropped for want of room
	Entries               int    // keyrings in memory
	Versions              int    // opened versions in memory
	Bytes                 int64  // what keyrings and versions in memory cost, by their stated sizes
	BreakersOpen          int    // KEKs that are not called because they did not answer
}

// counts are the counters behind Stats.
type counts struct {
	kekCalls, kekFailures, storeQueries atomic.Uint64
}

// Stats tells the counters. They are read one after the other.
func (k *Keeper) Stats() Stats {
	c := &k.counts
	s := Stats{
		KEKCalls: c.kekCalls.Load(), KEKFailures: c.kekFailures.Load(), StoreQueries: c.storeQueries.Load(),
		Hits: k.versions.hits.Load(), Misses: k.versions.misses.Load(),
		StaleUses: k.rings.staleUses.Load() + k.versions.staleUses.Load(),
		Refreshes: k.rings.refreshes.Load() + k.versions.refreshes.Load(),
		Evictions: k.rings.values.evicted.Load() + k.versions.values.evicted.Load(),
		Entries:   int(k.rings.values.entries.Load()),
		Versions:  int(k.versions.values.entries.Load()),
		Bytes:     k.rings.values.cost.Load() + k.versions.values.cost.Load(),
	}
	for _, g := range k.gates {
		if g.breaker.open() {
			s.BreakersOpen++
		}
	}
	return s
}
