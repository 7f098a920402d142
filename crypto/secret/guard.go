//go:build !goexperiment.runtimesecret

package secret

// guarded calls f. See the file for GOEXPERIMENT=runtimesecret.
func guarded(f func()) { f() }
