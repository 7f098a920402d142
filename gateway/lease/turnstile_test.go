package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/gateway/fault"
)

// A workload that asks for a hundred does not keep out one that asks for one.
func TestTurnsAreTakenByWorkload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTurnstile(1, 1000, time.Hour)
		leave, err := ts.enter(t.Context(), "first")
		if err != nil {
			t.Fatal(err)
		}
		var order []string
		var wg sync.WaitGroup
		ask := func(who string) {
			wg.Go(func() {
				leave, err := ts.enter(t.Context(), who)
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, who) // one at a time
				leave()
			})
			synctest.Wait()
		}
		for range 100 {
			ask("greedy")
		}
		ask("modest")
		leave()
		wg.Wait()
		for i, who := range order {
			if who == "modest" && i > 2 {
				t.Errorf("the modest one came as number %d", i+1)
			}
		}
		if len(order) != 101 || len(ts.waiting) != 0 || ts.free != 1 || ts.room != 1000 {
			t.Errorf("%d came; left behind: %d waiting, %d free, room %d", len(order), len(ts.waiting), ts.free, ts.room)
		}
	})
}

// Who waits too long, goes away, or finds no room is told so, and leaves no trace.
func TestWaitingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTurnstile(1, 2, time.Minute)
		leave, _ := ts.enter(t.Context(), "a")
		gone, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := ts.enter(gone, "b"); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
		})
		wg.Go(func() {
			if _, err := ts.enter(t.Context(), "b"); !errors.Is(err, fault.New(fault.SourceThrottled, "")) {
				t.Errorf("too long: %v", err)
			}
		})
		synctest.Wait()
		if _, err := ts.enter(t.Context(), "c"); !errors.Is(err, fault.New(fault.SourceThrottled, "")) {
			t.Errorf("no room: %v", err)
		}
		cancel()
		wg.Wait()
		leave()
		if len(ts.waiting) != 0 || len(ts.turns) != 0 || ts.free != 1 || ts.room != 2 {
			t.Errorf("left behind: %+v", ts)
		}
	})
}

// However callers come and go, no more are inside than there are places, and in the
// end all places are free.
func TestPlacesAreBounded(t *testing.T) {
	ts := newTurnstile(3, 50, 20*time.Millisecond)
	var inside, most atomic.Int64
	var wg sync.WaitGroup
	for i := range 400 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%7)*time.Millisecond)
			defer cancel()
			enter := ts.enter
			if i%5 == 0 {
				enter = ts.wait
			}
			leave, err := enter(ctx, fmt.Sprint(i%11))
			if err != nil {
				return
			}
			defer leave()
			n := inside.Add(1)
			defer inside.Add(-1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
		})
	}
	wg.Wait()
	if most.Load() > 3 || ts.free != 3 || ts.room != 50 || len(ts.waiting) != 0 || len(ts.turns) != 0 {
		t.Errorf("%d inside at once; left behind: %+v", most.Load(), ts)
	}
}

// A workload has its burst, then its rate, and nobody else's.
func TestAllowance(t *testing.T) {
	now := time.Unix(0, 0)
	a := newAllowance(2, 5)
	take := func(who string) (n int) {
		for a.take(who, now) {
			n++
		}
		return n
	}
	if n := take("a"); n != 5 {
		t.Errorf("a burst of %d", n)
	}
	if n := take("b"); n != 5 {
		t.Errorf("another's burst of %d", n)
	}
	now = now.Add(time.Second)
	if n := take("a"); n != 2 {
		t.Errorf("%d after a second", n)
	}
	now = now.Add(time.Hour)
	if n := take("a"); n != 5 {
		t.Errorf("%d after an hour", n)
	}
	for i := range 1000 {
		a.take(fmt.Sprint(i), now)
	}
	now = now.Add(time.Hour)
	a.take("a", now)
	now = now.Add(time.Hour)
	a.take("a", now)
	if n := len(a.recent) + len(a.older); n > 2 {
		t.Errorf("%d workloads remembered", n)
	}
}

// The clock follows jumps forward and ignores jumps back.
func TestClockDoesNotGoBack(t *testing.T) {
	begin := time.Unix(1_000_000, 0)
	var jump, passed time.Duration
	c := &Clock{
		start: begin, wall: func() time.Time { return begin.Add(passed + jump) }, elapsed: func() time.Duration { return passed },
	}
	for _, tt := range []struct{ passed, jump, want time.Duration }{
		{0, 0, 0},
		{time.Minute, 0, time.Minute},
		{2 * time.Minute, -time.Hour, 2 * time.Minute},
		{3 * time.Minute, time.Hour, 63 * time.Minute},
		{4 * time.Minute, 0, 4 * time.Minute},
	} {
		passed, jump = tt.passed, tt.jump
		if got := c.Now().Sub(begin); got != tt.want || c.Skew() != tt.jump {
			t.Errorf("after %v with a jump of %v: %v, skew %v", tt.passed, tt.jump, got, c.Skew())
		}
	}
	before := NewClock(time.Now).Now()
	if d := time.Since(before); d < 0 || d > time.Minute {
		t.Errorf("the real clock is off by %v", d)
	}
}

func TestNames(t *testing.T) {
	const good = "tenants/acme/secretRoles/db/leases/00112233445566778899aabbccddeeff"
	n, err := ParseName(good)
	if err != nil || n.String() != good || n.Role.String() != "tenants/acme/secretRoles/db" {
		t.Errorf("%v, %v", n, err)
	}
	for _, bad := range []string{
		"", good + "0", good[:len(good)-1], "tenants/acme/secretRoles/db", "tenants/acme/keyrings/db/leases/00112233445566778899aabbccddeeff",
		"tenants/acme/secretRoles/db/leases/00112233445566778899AABBCCDDEEFF", "tenants//secretRoles/db/leases/00112233445566778899aabbccddeeff",
		good + "/leases/00112233445566778899aabbccddeeff", "/" + good, good + "/",
	} {
		if n, err := ParseName(bad); err == nil || n != (Name{}) {
			t.Errorf("%q: %v, %v", bad, n, err)
		}
	}
}

func FuzzParseName(f *testing.F) {
	f.Add("tenants/acme/secretRoles/db/leases/00112233445566778899aabbccddeeff")
	f.Add("tenants/acme/secretRoles/db")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseName(s); err == nil && n.String() != s {
			t.Errorf("%q became %q", s, n)
		}
		if n, err := ParseRoleName(s); err == nil && n.String() != s {
			t.Errorf("%q became %q", s, n)
		}
	})
}

func FuzzPage(f *testing.F) {
	f.Add("", int32(0))
	f.Add(NextPage([]Lease{{Created: time.Unix(1, 2), Name: Name{ID: ID{3}}}}, 1), int32(5))
	f.Fuzz(func(t *testing.T, token string, size int32) {
		c, limit, err := Page(token, size)
		if err == nil && (limit < 1 || limit > maxPage) {
			t.Errorf("limit %d", limit)
		}
		if err == nil && token != "" {
			if again := NextPage([]Lease{{Created: c.Created, Name: Name{ID: c.ID}}}, 1); again != token {
				t.Errorf("%q came back as %q", token, again)
			}
		}
	})
}
