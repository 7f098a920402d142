package lease

import (
	"fmt"

	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

// State is where a lease stands. The numbers are those of secretsv1.LeaseState; the
// zero State is none.
type State uint8

// The states.
const (
	// StateReserved: the anchor is in the ledger, and the credential may exist.
	// Nobody has the value.
	StateReserved = State(secretsv1.LeaseState_LEASE_STATE_RESERVED)
	// StateActive: the credential is issued and works until Expires.
	StateActive = State(secretsv1.LeaseState_LEASE_STATE_ACTIVE)
	// StateRevoking: its end is decided and not confirmed.
	StateRevoking = State(secretsv1.LeaseState_LEASE_STATE_REVOKING)
	// StateGone: the credential does not work any more. The row is kept for a while,
	// to answer.
	StateGone = State(secretsv1.LeaseState_LEASE_STATE_GONE)
	// StateStuck: its end could not be confirmed for as long as it could live. It
	// counts as alive, and tries go on.
	StateStuck = State(secretsv1.LeaseState_LEASE_STATE_STUCK)
)

// stateEnd is one past the last.
const stateEnd = 6

// moves is the table of allowed moves. Every move is compare-and-swap on the row's
// revision. What is gone stays gone, and nothing comes back to life.
var moves = [stateEnd][stateEnd]bool{
	StateReserved: {
		StateActive:   true, // issued
		StateRevoking: true, // not issued, not answered, or a crash left it
	},
	StateActive: {
		StateActive:   true, // renewed, or found to live longer
		StateRevoking: true, // revoked
		StateGone:     true, // its own end is confirmed
	},
	StateRevoking: {
		StateRevoking: true, // a try failed
		StateGone:     true, // the end is confirmed
		StateStuck:    true, // no longer explained by the credential's own lifetime
	},
	StateStuck: {
		StateStuck: true, // a try failed
		StateGone:  true, // the end is confirmed at last
	},
}

// May reports whether a lease may move from s to next.
func (s State) May(next State) bool { return s < stateEnd && next < stateEnd && moves[s][next] }

// Valid reports whether s is one of the states.
func (s State) Valid() bool { return s > 0 && s < stateEnd }

var stateNames = [stateEnd]string{"none", "reserved", "active", "revoking", "gone", "stuck"}

// String gives the state's name in lower case.
func (s State) String() string {
	if s >= stateEnd {
		return fmt.Sprintf("State(%d)", uint8(s))
	}
	return stateNames[s]
}
