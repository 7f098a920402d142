package lease

import "time"

// MaxClockSkew is how far the wall clock may jump before the gateway says so.
const MaxClockSkew = 2 * time.Second

// Clock is time that does not go back: the later of the wall clock and of what has
// passed since the start by the monotonic clock. After a jump back no lease lives
// longer than it would have; after a jump forward leases end early, which is safe.
type Clock struct {
	start time.Time
	now   func() time.Time
}

// NewClock makes a Clock over time.Now, or what stands for it in a test.
func NewClock(now func() time.Time) *Clock { return &Clock{start: now(), now: now} }

// Now gives the time.
func (c *Clock) Now() time.Time {
	now := c.now()
	// Sub uses the monotonic readings, Round strips them.
	steady := c.start.Round(0).Add(now.Sub(c.start))
	if wall := now.Round(0); wall.After(steady) {
		return wall
	}
	return steady
}

// Skew is how far the wall clock has jumped since the start: forward if positive.
func (c *Clock) Skew() time.Duration {
	now := c.now()
	return now.Round(0).Sub(c.start.Round(0).Add(now.Sub(c.start)))
}
