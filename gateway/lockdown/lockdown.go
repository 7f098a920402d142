// Package lockdown gives up, at start, what a gateway never needs and an intruder
// would want.
package lockdown

// Process makes the process leave no core dumps, refuse to be traced by other
// processes of its user, and never gain privileges. It does nothing where the
// system has no such means. What it cannot stop is in docs/threat-model.md: root.
func Process() error { return process() }
