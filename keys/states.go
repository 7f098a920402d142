package keys

import "fmt"

// String gives the purpose's name, which is part of every AWS encryption context.
func (p Purpose) String() string {
	switch p {
	case PurposeAEAD:
		return "aead"
	case PurposeDeterministic:
		return "deterministic"
	case PurposeMAC:
		return "mac"
	case PurposeSigning:
		return "signing"
	}
	return "none"
}

// Valid reports whether p is one of the purposes of keyrings.
func (p Purpose) Valid() bool { return p >= PurposeAEAD && p <= PurposeMAC }

// String gives the state's name as the documents write it.
func (s State) String() string {
	switch s {
	case StatePending:
		return "pending"
	case StatePrimary:
		return "primary"
	case StateEnabled:
		return "enabled"
	case StateDisabled:
		return "disabled"
	case StateCompromised:
		return "compromised"
	case StateScheduledForDestruction:
		return "scheduled-for-destruction"
	case StateDestroyed:
		return "destroyed"
	}
	return "none"
}

// Opens reports whether a version in this state may open envelopes. Only
// StatePrimary seals.
func (s State) Opens() bool { return s == StatePrimary || s == StateEnabled }

// moves is every move between states that somebody may ask for, apart from two:
// a rotation takes the primary to enabled, and only the sweep takes a scheduled
// version to destroyed. The primary has no row, because a keyring without one
// could not seal: rotate first, then judge the old version.
var moves = map[State][]State{
	StatePending:                 {StatePrimary, StateDisabled, StateCompromised},
	StateEnabled:                 {StateDisabled, StateCompromised},
	StateDisabled:                {StateEnabled, StateCompromised, StateScheduledForDestruction},
	StateCompromised:             {StateScheduledForDestruction},
	StateScheduledForDestruction: {StateDisabled, StateCompromised},
}

// checkMove returns an error wrapping ErrVersionState if v may not move to the
// state. A version that was ever marked compromised never opens again, by
// whatever way round.
func checkMove(v Version, to State) error {
	if v.State == StatePrimary {
		return fmt.Errorf("%w: version %d is primary: rotate first", ErrVersionState, v.Number)
	}
	for _, allowed := range moves[v.State] {
		if allowed != to {
			continue
		}
		if !v.Compromised.IsZero() && (to == StateDisabled || to.Opens()) {
			return fmt.Errorf("%w: version %d was marked compromised", ErrVersionState, v.Number)
		}
		return nil
	}
	return fmt.Errorf("%w: version %d cannot go from %v to %v", ErrVersionState, v.Number, v.State, to)
}
