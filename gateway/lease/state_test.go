package lease

import (
	"testing"

	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

// The states are those of the proto, by number and by name.
func TestStatesAreTheProtos(t *testing.T) {
	if len(secretsv1.LeaseState_name) != int(stateEnd) {
		t.Fatalf("the proto has %d states, we have %d", len(secretsv1.LeaseState_name), stateEnd)
	}
}

// What is gone does not move, and everything else has a way to it.
func TestMoves(t *testing.T) {
	for next := State(0); next < stateEnd; next++ {
		if StateGone.May(next) {
			t.Errorf("gone may move to %v", next)
		}
		if next.May(StateReserved) {
			t.Errorf("%v may move back to reserved", next)
		}
		if next != StateReserved && next != StateActive && next.May(StateActive) {
			t.Errorf("%v may come back to life", next)
		}
	}
	reaches := map[State]bool{StateGone: true}
	for range int(stateEnd) {
		for s := State(1); s < stateEnd; s++ {
			for next := range reaches {
				reaches[s] = reaches[s] || s.May(next)
			}
		}
	}
	for s := State(1); s < stateEnd; s++ {
		if !reaches[s] {
			t.Errorf("%v has no way to gone", s)
		}
	}
	if State(200).May(StateGone) || StateActive.May(State(200)) || State(0).May(StateReserved) {
		t.Error("states that are none may move")
	}
}
