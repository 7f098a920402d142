//go:build goexperiment.runtimesecret

package secret

import "runtime/secret"

// guarded calls f so that the stack, the registers and the heap objects it
// leaves behind are cleared.
func guarded(f func()) { secret.Do(f) }
