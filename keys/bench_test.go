package keys_test

import (
	"fmt"
	"testing"

	"github.com/sallyport/sallyport/keys"
)

// BenchmarkWarm looks keys up that are in memory: no store, no KEK, no allocation.
func BenchmarkWarm(b *testing.B) {
	for _, rings := range []int{1, 1000} {
		w := newWorld(b, func(c *keys.Config) { c.Entries = 10_000 })
		names := make([]keys.Name, rings)
		for i := range names {
			names[i] = w.create(b, fmt.Sprintf("ring-%d", i), keys.PurposeAEAD)
			w.warm(b, names[i])
		}
		m := message(b, 1)
		b.Run(fmt.Sprintf("Sealing/rings=%d", rings), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := w.Sealing(b.Context(), names[i%rings], keys.PurposeAEAD); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("Opening/rings=%d", rings), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := w.Opening(b.Context(), names[i%rings], keys.PurposeAEAD, m); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("Parallel/rings=%d", rings), func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, err := w.Sealing(b.Context(), names[i%rings], keys.PurposeAEAD); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkCold opens versions that are not in memory, under a KEK that takes no
// time.
func BenchmarkCold(b *testing.B) {
	w := newWorld(b, nil)
	n := w.create(b, "ring", keys.PurposeAEAD)
	b.ReportAllocs()
	for b.Loop() {
		w.Invalidate(n)
		w.warm(b, n)
	}
}

// TestWarmDoesNotAllocate: neither for sealing nor for opening.
func TestWarmDoesNotAllocate(t *testing.T) {
	w := newWorld(t, nil)
	n := w.create(t, "ring", keys.PurposeAEAD)
	w.warm(t, n)
	m := message(t, 1)
	if allocs := testing.AllocsPerRun(1000, func() {
		if _, err := w.Sealing(t.Context(), n, keys.PurposeAEAD); err != nil {
			t.Error(err)
		}
		if _, err := w.Opening(t.Context(), n, keys.PurposeAEAD, m); err != nil {
			t.Error(err)
		}
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// TestManyKeyrings: a walk over many more keyrings than fit costs what the
// configuration says.
func TestManyKeyrings(t *testing.T) {
	const entries, rings = 200, 3000
	w := newWorld(t, func(c *keys.Config) { c.Entries = entries })
	hot := w.create(t, "hot", keys.PurposeAEAD)
	before := w.Stats().KEKCalls
	for i := range rings {
		w.warm(t, w.create(t, fmt.Sprintf("ring-%d", i), keys.PurposeAEAD))
		w.seals(t, hot, nil)
	}
	s := w.Stats()
	if s.Entries > 2*entries || s.Versions > entries || s.Bytes > entries*keys.EntryBytes || s.Evictions == 0 {
		t.Errorf("%+v", s)
	}
	if opened := s.KEKCalls - before - rings; opened > rings+rings/20 {
		t.Errorf("%d openings for %d keyrings and one that was always in use", opened, rings)
	}
}
