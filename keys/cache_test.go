package keys

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/envelope"
)

func always() bool { return true }

func TestCacheHoldsWhatFits(t *testing.T) {
	c := newCache[int, int](1000, 1)
	for i := range 500 {
		c.put(i, -i, 1, always)
	}
	for i := range 500 {
		if v, ok := c.get(i); !ok || v != -i {
			t.Fatalf("%d: %d, %t", i, v, ok)
		}
	}
	c.put(7, 70, 3, always)
	c.put(8, 80, 1, func() bool { return false })
	if v, _ := c.get(7); v != 70 || c.cost.Load() != 502 || c.entries.Load() != 500 || c.evicted.Load() != 0 {
		t.Errorf("after a replacement: %d, cost %d, %d entries, %d evicted", v, c.cost.Load(), c.entries.Load(), c.evicted.Load())
	}
	if v, _ := c.get(8); v != -8 {
		t.Error("what was not admitted is there")
	}
	c.delete(7)
	if _, ok := c.get(7); ok || c.cost.Load() != 499 {
		t.Errorf("after a deletion: %t, cost %d", ok, c.cost.Load())
	}
	c.each(func(k, _ int) bool { return k%2 == 0 })
	if c.entries.Load() != 249 || c.cost.Load() != 249 {
		t.Errorf("half of it: %d entries, cost %d", c.entries.Load(), c.cost.Load())
	}
}

// TestCacheIsBounded, in cost, whatever single entries cost, while several write.
func TestCacheIsBounded(t *testing.T) {
	const limit = 1000
	c := newCache[int, int](limit, 1)
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			for i := range 20_000 {
				key := i*4 + w
				c.put(key, key, int64(1+key%50), always)
				if v, ok := c.get(key - 40); ok && v != key-40 {
					t.Errorf("key %d has value %d", key-40, v)
				}
			}
		})
	}
	group.Wait()
	var cost, entries int64
	c.each(func(k, _ int) bool { cost += int64(1 + k%50); entries++; return false })
	if cost > limit || cost != c.cost.Load() || entries != c.entries.Load() {
		t.Errorf("%d entries cost %d of %d, counted %d and %d", entries, cost, limit, c.entries.Load(), c.cost.Load())
	}
	if c.evicted.Load() == 0 {
		t.Error("nothing was evicted")
	}
}

// TestCacheKeepsWhatIsUsed while strangers pass through.
func TestCacheKeepsWhatIsUsed(t *testing.T) {
	const rounds, hot = 20_000, 10
	c := newCache[int, int](1000, 1)
	lost := 0
	for i := range rounds {
		c.put(hot+i, 0, 1, always)
		for key := range hot {
			if _, ok := c.get(key); !ok {
				lost++
				c.put(key, 0, 1, always)
			}
		}
	}
	if lost > 2*hot {
		t.Errorf("keys in use were missing %d times in %d rounds", lost, rounds)
	}
}

// TestFullSetKeepsWhatIsUsed: where a set is full although the cache is not.
func TestFullSetKeepsWhatIsUsed(t *testing.T) {
	c := newCache[int, int](4, 1) // one set
	c.limit = 1 << 20
	for key := range ways + 1 { // the last finds no idle one and takes the marks away
		c.put(key, 0, 1, always)
	}
	idle := -1
	for key := range ways + 1 {
		if idle < 0 && key > 3 {
			idle = key
			continue
		}
		c.get(key)
	}
	c.put(100, 0, 1, always)
	if _, ok := c.get(idle); ok || c.entries.Load() != ways || c.cost.Load() != ways {
		t.Errorf("the idle entry is there: %t; %d entries cost %d", ok, c.entries.Load(), c.cost.Load())
	}
}

// TestKeysetsAreChecked: what a KEK releases is used only if it is one key of the
// purpose.
func TestKeysetsAreChecked(t *testing.T) {
	scope := envelope.Scope{Deployment: "d", Environment: "e", Tenant: "t", Keyring: envelope.KeyringID{1}, Version: 1}
	for _, made := range []Purpose{PurposeAEAD, PurposeDeterministic, PurposeMAC} {
		one, err := newKeyset(made)
		if err != nil {
			t.Fatal(err)
		}
		for _, opened := range []Purpose{PurposeAEAD, PurposeDeterministic, PurposeMAC, 0} {
			if _, err := openKeyset(one, opened, scope); (err == nil) != (made == opened) {
				t.Errorf("made for %v, opened for %v: %v", made, opened, err)
			}
		}
		other, err := newKeyset(made)
		if err != nil {
			t.Fatal(err)
		}
		// Serialised keysets are protobuf messages: one behind the other is their union.
		for what, bad := range map[string][]byte{"two keys": append(one, other...), "cut": one[:len(one)-1], "empty": nil} {
			if _, err := openKeyset(bad, made, scope); !errors.Is(err, errKeyset) {
				t.Errorf("%v, %s: %v", made, what, err)
			}
		}
	}
	if _, err := newKeyset(0); !errors.Is(err, ErrArgument) {
		t.Errorf("no purpose: %v", err)
	}
}

// TestMemory measures what the stated sizes claim, in bytes for each entry.
func TestMemory(t *testing.T) {
	const n = 2000
	var kept []any
	measure := func(what string, stated int64, entry func(i int) any) {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for i := range n {
			kept = append(kept, entry(i))
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n
		t.Logf("%s: %d bytes each, stated %d", what, each, stated)
		if each > stated {
			t.Errorf("%s: %d bytes each, stated %d", what, each, stated)
		}
	}
	k := &Keeper{config: Config{Deployment: "deployment", Environment: "production"}}
	name := func(i int) Name { return Name{Tenant(fmt.Sprintf("tenant-%d", i)), fmt.Sprintf("keyring-%d", i)} }
	for _, p := range []Purpose{PurposeAEAD, PurposeDeterministic, PurposeMAC} {
		measure(p.String(), handleCost, func(i int) any {
			keyset, err := newKeyset(p)
			if err != nil {
				t.Fatal(err)
			}
			n := name(i)
			h, err := k.handle(keyset, k.binding(n, envelope.KeyringID{1}, p, 1))
			if err != nil {
				t.Fatal(err)
			}
			if h.aead != nil { // what its first use keeps
				if _, err := h.aead.Seal(nil, nil, binding.Context{}, envelope.SuiteStandard); err != nil {
					t.Fatal(err)
				}
			}
			key := versionName{n, 1}
			return &slot[versionName, *loaded[*opened]]{key: key, value: &loaded[*opened]{value: &opened{h, nil}}}
		})
	}
	const versions, wrapped = 4, 200
	stated := (&view{versions: []viewVersion{{wrapped: make([]byte, wrapped)}}}).cost()*1 + (versions-1)*(versionCost+wrapped)
	measure("keyring", stated, func(i int) any {
		v := &view{versions: make([]viewVersion, versions)}
		for j := range v.versions {
			v.versions[j].wrapped = make([]byte, wrapped)
		}
		return &slot[Name, *loaded[*view]]{key: name(i), value: &loaded[*view]{value: v}}
	})
	runtime.KeepAlive(kept)
}

// TestLateJoiners: a caller that looked before a load ended, and joins after it, gets
// its result and begins no other. Nothing in the public interface can time this.
func TestLateJoiners(t *testing.T) {
	loads := 0
	k := &Keeper{config: Config{RefreshAfter: time.Minute, MaxStaleness: time.Hour}, start: time.Now(), ctx: t.Context()}
	r := &resolver[Name, int]{
		keeper: k, name: func(n Name) Name { return n }, cost: func(int) int64 { return 1 },
		load:   func(context.Context, Name) (int, error) { loads++; return loads, nil },
		values: newCache[Name, *loaded[int]](10, 1),
	}
	r.init()
	n := Name{"acme", "ring"}
	for range 3 {
		if v, err := r.join(n, nil).wait(t.Context()); v != 1 || err != nil {
			t.Errorf("%d, %v", v, err)
		}
	}
	seen, _ := r.values.get(n)
	if v, err := r.join(n, seen).wait(t.Context()); v != 2 || err != nil {
		t.Errorf("who saw the first value and wants another: %d, %v", v, err)
	}
	if v, err := r.join(n, seen).wait(t.Context()); v != 2 || err != nil {
		t.Errorf("who saw the first value and comes late: %d, %v", v, err)
	}
}
