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
	room    int // for those who wait; negative while some wait without asking for room
	waiting map[string][]chan struct{}
	turns   []string // workloads with somebody waiting, in the order of their turns
}

func newTurnstile(places, room int, patience time.Duration) *turnstile {
	return &turnstile{free: places, room: room, patience: patience, waiting: map[string][]chan struct{}{}}
}

// enter waits for a place, if there is room to wait. The caller calls leave when it is
// done. The error is SOURCE_THROTTLED, or the context's.
func (t *turnstile) enter(ctx context.Context, who string) (leave func(), err error) {
	turn, err := t.join(who, false)
	if err != nil || turn == nil {
		return t.leave, err
	}
	timer := time.NewTimer(t.patience)
	defer timer.Stop()
	return t.await(ctx, who, turn, timer.C)
}

// wait waits for a place for as long as the context lives, whether there is room or
// not: for callers whose number is bounded by other means. The error is the context's.
func (t *turnstile) wait(ctx context.Context, who string) (leave func(), err error) {
	turn, _ := t.join(who, true)
	if turn == nil {
		return t.leave, nil
	}
	return t.await(ctx, who, turn, nil)
}

// join takes a place, and then there is no turn to wait for, or joins the queue. The
// turn is closed when the place is there.
func (t *turnstile) join(who string, always bool) (turn chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.free > 0 {
		t.free--
		return nil, nil
	}
	if t.room <= 0 && !always {
		return nil, fault.New(fault.SourceThrottled, "")
	}
	turn = make(chan struct{})
	t.room--
	if len(t.waiting[who]) == 0 {
		t.turns = append(t.turns, who)
	}
	t.waiting[who] = append(t.waiting[who], turn)
	return turn, nil
}

func (t *turnstile) await(ctx context.Context, who string, turn chan struct{}, impatient <-chan time.Time) (leave func(), err error) {
	select {
	case <-turn:
		return t.leave, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-impatient:
		err = fault.New(fault.SourceThrottled, "")
	}
	if !t.giveUp(who, turn) {
		t.leave() // the place came at the same moment
	}
	return nil, err
}

// entry is enter or wait.
type entry func(t *turnstile, ctx context.Context, who string) (leave func(), err error)

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
