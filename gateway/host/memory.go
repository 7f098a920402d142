package host

import "runtime/debug"

// gcPercent lets the heap grow to five times what is live before it is collected.
// A gateway's live heap is small (its caches are bounded) and its garbage is
// large, so that the default spends a tenth of the processor on collecting.
const gcPercent = 400

// TuneMemory sets the garbage collector for a process that is a gateway and nothing
// else. GOMEMLIMIT is respected.
func TuneMemory() { debug.SetGCPercent(gcPercent) }
