package host

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

// gcPercent lets the heap grow to five times what is live before it is collected.
// A gateway's live heap is small (its caches are bounded) and its garbage is
// large, so that the default spends a tenth of the processor on collecting.
const gcPercent = 400

// TuneMemory sets the garbage collector for a process that is a gateway and nothing
// else. GOMEMLIMIT is respected.
func TuneMemory() { debug.SetGCPercent(gcPercent) }

const (
	// restInterval is how often it is asked whether the gateway rests.
	restInterval = 30 * time.Second
	// restAllocation is how much a gateway that rests allocates between two looks.
	restAllocation = 32 << 20
	// restMemory is what a gateway that rests may keep without being asked for it.
	restMemory = 32 << 20
)

// giveBack returns memory to the system when a gateway that was busy rests, until the
// context ends: with gcPercent, garbage would stay for as long as nothing happens.
// What it costs, a collection, is paid while nobody waits.
func giveBack(ctx context.Context) {
	tick := time.NewTicker(restInterval)
	defer tick.Stop()
	var before uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if m.TotalAlloc-before < restAllocation && m.HeapSys-m.HeapReleased > restMemory {
			debug.FreeOSMemory()
		}
		before = m.TotalAlloc
	}
}
