package lease

import (
	"context"
	"sync"
	"time"

	"github.com/sallyport/sallyport/gateway/fault"
)

// turnstile lets a bounded number of calls through to a source at once. Those who
// wait are let in by turns of their workloads, so that one which asks for a thousand
// does not keep the others out.
type turnstile struct {
	patience time.Duration // how long a call waits

	mu      sync.Mutex
	free    int // places
	room    int // for those who wait
	waiting map[string][]chan struct{}
	turns   []string // workloads with somebody waiting, in the order of their turns
}

func newTurnstile(places, room int, patience time.Duration) *turnstile {
	return &turnstile{free: places, room: room, patience: patience, waiting: map[string][]chan struct{}{}}
}

// enter waits for a place. The caller calls leave when it is done. The error is
// SOURCE_THROTTLED, or the context's.
func (t *turnstile) enter(ctx context.Context, who string) (leave func(), err error) {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return t.leave, nil
	}
	if t.room == 0 {
		t.mu.Unlock()
		return nil, fault.New(fault.SourceThrottled, "")
	}
	t.room--
	turn := make(chan struct{})
	if len(t.waiting[who]) == 0 {
		t.turns = append(t.turns, who)
	}
	t.waiting[who] = append(t.waiting[who], turn)
	t.mu.Unlock()

	timer := time.NewTimer(t.patience)
	defer timer.Stop()
	select {
	case <-turn:
		return t.leave, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = fault.New(fault.SourceThrottled, "")
	}
	if !t.giveUp(who, turn) {
		t.leave() // the place came at the same moment
	}
	return nil, err
}

// leave hands the place to the next in turn.
func (t *turnstile) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.turns) == 0 {
		t.free++
		return
	}
	who := t.turns[0]
	t.turns = t.turns[1:]
	queue := t.waiting[who]
	close(queue[0])
	t.room++
	if len(queue) == 1 {
		delete(t.waiting, who)
		return
	}
	t.waiting[who] = queue[1:]
	t.turns = append(t.turns, who)
}

// giveUp takes a waiting call out of its queue. It reports false if its turn has
// come.
func (t *turnstile) giveUp(who string, turn chan struct{}) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	queue := t.waiting[who]
	for i := range queue {
		if queue[i] != turn {
			continue
		}
		t.room++
		if len(queue) > 1 {
			t.waiting[who] = append(queue[:i:i], queue[i+1:]...)
			return true
		}
		delete(t.waiting, who)
		for j := range t.turns {
			if t.turns[j] == who {
				t.turns = append(t.turns[:j:j], t.turns[j+1:]...)
				break
			}
		}
		return true
	}
	return false
}
