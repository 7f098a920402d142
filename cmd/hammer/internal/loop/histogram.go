package loop

import (
	"math"
	"math/bits"
	"time"
)

// Histogram counts durations in buckets whose width is at most 1/64 of the value,
// from a nanosecond to more than a day. The zero value is empty.
type Histogram struct {
	buckets [(64 - subBits) << subBits]uint64
	count   uint64
}

const subBits = 6

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) {
	h.buckets[bucketOf(uint64(max(d, 0)))]++
	h.count++
}

// Merge adds what another histogram counted.
func (h *Histogram) Merge(other *Histogram) {
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
	h.count += other.count
}

// Count is how many durations were counted.
func (h *Histogram) Count() uint64 { return h.count }

// Quantile gives the duration that the fraction q of all durations do not exceed,
// up to the width of a bucket; 0 when there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := uint64(math.Ceil(q * float64(h.count)))
	var seen uint64
	for i, n := range h.buckets {
		if seen += n; seen >= rank && n > 0 {
			return time.Duration(upperOf(i))
		}
	}
	return 0
}

// bucketOf keeps the highest subBits+1 bits of v: values below 2<<subBits have a
// bucket each, and every power of two above is cut into 1<<subBits.
func bucketOf(v uint64) int {
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

// upperOf is the largest value in a bucket.
func upperOf(i int) uint64 {
	shift := max(i>>subBits-1, 0)
	return (uint64(i-shift<<subBits)+1)<<shift - 1
}
