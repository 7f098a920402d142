package lease

import "time"

// MaxClockSkew is how far the wall clock may jump before the gateway says so.
const MaxClockSkew = 2 * time.Second

// Clock is time that does not go back: the later of the wall clock and of what has
// passed since the start by the monotonic clock. After a jump back no lease lives
// longer than it would have; after a jump forward leases end early, which is safe.
type Clock struct {
	start   time.Time
	wall    func() time.Time
	elapsed func() time.Duration // since start; never less than before
}

// NewClock makes a Clock over time.Now, or what stands for it in a test.
func NewClock(now func() time.Time) *Clock {
	start := now()
	// Sub uses the monotonic readings if both have one; Round strips them.
	return &Clock{
		start: start.Round(0),
		wall:  func() time.Time { return now().Round(0) }, elapsed: func() time.Duration { return now().Sub(start) },
	}
}

// Now gives the time.
func (c *Clock) Now() time.Time { return later(c.wall(), c.steady()) }

// Skew is how far the wall clock has jumped since the start: forward if positive.
func (c *Clock) Skew() time.Duration { return c.wall().Sub(c.steady()) }

func (c *Clock) steady() time.Time { return c.start.Add(c.elapsed()) }
