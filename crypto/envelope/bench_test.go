package envelope_test

import (
	"fmt"
	"testing"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/envelope"
)

func BenchmarkSeal(b *testing.B) {
	k := newAEADKey(b, fill(1, 32), ownScope())
	c := context(b, "table", "users", "row", "17")
	for _, suite := range []envelope.Suite{envelope.SuiteStandard, envelope.SuiteCompact} {
		for _, n := range []int{100, 1024, 64 << 10} {
			plaintext, dst := make([]byte, n), make([]byte, 0, n+2000)
			b.Run(fmt.Sprintf("%v/%d", suite, n), func(b *testing.B) {
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					_, _ = k.Seal(dst, plaintext, c, suite)
				}
			})
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	k := newAEADKey(b, fill(1, 32), ownScope())
	c := context(b, "table", "users", "row", "17")
	for _, suite := range []envelope.Suite{envelope.SuiteStandard, envelope.SuiteCompact} {
		for _, n := range []int{100, 1024} {
			raw, _ := k.Seal(nil, make([]byte, n), c, suite)
			dst := make([]byte, 0, n)
			b.Run(fmt.Sprintf("%v/%d", suite, n), func(b *testing.B) {
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					m, _ := envelope.Parse(raw)
					if _, err := k.Open(dst, m, c); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkDeterministicAndMAC(b *testing.B) {
	c := context(b, "table", "users", "row", "17")
	plaintext, dst := make([]byte, 100), make([]byte, 0, 2000)
	d, h := newSIVKey(b, fill(1, 64), ownScope()), newMACKey(b, fill(1, 32), ownScope())
	b.Run("deterministic/100", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = d.Seal(dst, plaintext, c)
		}
	})
	b.Run("mac/100", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = h.Compute(dst, plaintext, c)
		}
	})
}

func BenchmarkDeriveAEADKey(b *testing.B) {
	p := branch(b, fill(1, 32))
	b.ReportAllocs()
	for b.Loop() {
		_, _ = envelope.DeriveAEADKey(p, ownScope())
	}
}

// TestAllocations holds the budget of the hot path.
func TestAllocations(t *testing.T) {
	k := newAEADKey(t, fill(1, 32), ownScope())
	plaintext, dst := make([]byte, 1024), make([]byte, 0, 2048)
	for _, suite := range []envelope.Suite{envelope.SuiteStandard, envelope.SuiteCompact} {
		n := testing.AllocsPerRun(200, func() { _, _ = k.Seal(dst, plaintext, binding.Context{}, suite) })
		if n > 16 {
			t.Errorf("%v: %v allocations for a Seal, want at most 16", suite, n)
		}
	}
}
