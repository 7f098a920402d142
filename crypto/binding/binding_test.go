package binding_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/crypto/binding"
)

// genMap draws maps inside the limits.
func genMap() *rapid.Generator[map[string]string] {
	name := rapid.StringN(1, 16, binding.MaxNameLen)
	value := rapid.StringN(0, 40, 160)
	return rapid.MapOfN(name, value, 0, binding.MaxPairs)
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genMap().Draw(t, "m")
		c, err := binding.FromMap(m)
		if err != nil {
			t.Fatal(err)
		}
		if got := maps.Collect(c.Pairs()); !maps.Equal(got, m) {
			t.Fatalf("pairs %q, want %q", got, m)
		}
		if want := slices.Sorted(maps.Keys(m)); !slices.Equal(c.Names(), want) || c.Len() != len(m) {
			t.Fatalf("names %q, want %q", c.Names(), want)
		}
		p, err := binding.Parse(c.Encoding())
		if err != nil || !p.Equal(c) || !bytes.Equal(p.Encoding(), c.Encoding()) || p.NamesBlock() != c.NamesBlock() {
			t.Fatalf("Parse is not the inverse: %v", err)
		}
		if want := sha256.Sum256(binding.Encode("sallyport/v1/context", c.Encoding())); c.Digest() != want {
			t.Fatal("the digest is not as documented")
		}
		names, err := binding.ParseNames([]byte(c.NamesBlock()))
		if err != nil || !slices.Equal(names, c.Names()) {
			t.Fatalf("ParseNames: %q, %v", names, err)
		}
		for name, value := range m {
			if got, ok := c.Value(name); !ok || got != value {
				t.Fatalf("Value: %q, %t", got, ok)
			}
		}
	})
}

func TestContextIsInjective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// A small alphabet, so that different maps with equal concatenations
		// are drawn often.
		text := rapid.StringOfN(rapid.SampledFrom([]rune("a\x00\x01")), 0, 3, -1)
		small := rapid.MapOfN(text.Filter(func(s string) bool { return s != "" }), text, 0, 3)
		a, b := small.Draw(t, "a"), small.Draw(t, "b")
		ca, errA := binding.FromMap(a)
		cb, errB := binding.FromMap(b)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if same := maps.Equal(a, b); bytes.Equal(ca.Encoding(), cb.Encoding()) != same || ca.Equal(cb) != same {
			t.Fatalf("equal maps: %t, but encodings %x and %x", same, ca.Encoding(), cb.Encoding())
		}
	})
}

func TestEncodeIsInjective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 8}), 0, 9), 1, 3)
		a, b := list.Draw(t, "a"), list.Draw(t, "b")
		ea := binding.Encode(string(a[0]), a[1:]...)
		eb := binding.Encode(string(b[0]), b[1:]...)
		if same := slices.EqualFunc(a, b, bytes.Equal); bytes.Equal(ea, eb) != same {
			t.Fatalf("equal lists: %t, but encodings %x and %x", same, ea, eb)
		}
	})
}

func TestEncode(t *testing.T) {
	const want = "0000000000000001" + "64" + "0000000000000000" + "0000000000000002" + "0102"
	if got := hex.EncodeToString(binding.Encode("d", nil, []byte{1, 2})); got != want {
		t.Errorf("Encode: %s, want %s", got, want)
	}
	if got := binding.AppendUint32(nil, 0x01020304); !bytes.Equal(got, binding.AppendField(nil, []byte{1, 2, 3, 4})) {
		t.Errorf("AppendUint32: %x", got)
	}
}

func TestEmptyContext(t *testing.T) {
	fromNil, _ := binding.FromMap(nil)
	fromNone, _ := binding.FromPairs([]binding.Pair{})
	parsed, _ := binding.Parse(nil)
	want := sha256.Sum256(binding.Encode("sallyport/v1/context", nil))
	for i, c := range []binding.Context{{}, fromNil, fromNone, parsed} {
		if c.Digest() != want || c.Len() != 0 || len(c.Encoding()) != 0 || c.NamesBlock() != "" || len(c.Names()) != 0 {
			t.Errorf("%d: not the empty context", i)
		}
	}
	one, _ := binding.FromMap(map[string]string{"a": ""})
	if one.Equal(fromNil) {
		t.Error("a pair with an empty value equals the empty context")
	}
}

// pairsOf makes n pairs with names of nameLen and values of valueLen bytes.
func pairsOf(n, nameLen, valueLen int) []binding.Pair {
	var pairs []binding.Pair
	for i := range n {
		name := fmt.Sprintf("%02d", i) + strings.Repeat("n", nameLen)
		pairs = append(pairs, binding.Pair{Name: name[:nameLen], Value: strings.Repeat("v", valueLen)})
	}
	return pairs
}

type limitCase struct {
	name  string
	pairs []binding.Pair
	want  error
}

// limits lists contexts on both sides of each limit.
func limits() []limitCase {
	return []limitCase{
		{"most pairs", pairsOf(16, 64, 189), nil}, // 16 × (1+64+2+189) = 4096
		{"one byte more", append(pairsOf(15, 64, 189), binding.Pair{Name: "x" + strings.Repeat("n", 63), Value: strings.Repeat("v", 190)}), binding.ErrTooLarge},
		{"17 pairs", pairsOf(17, 2, 0), binding.ErrTooManyPairs},
		{"empty name", []binding.Pair{{Name: "", Value: "v"}}, binding.ErrName},
		{"longest name", pairsOf(1, 64, 0), nil},
		{"name of 65", pairsOf(1, 65, 0), binding.ErrName},
		{"longest value", pairsOf(1, 2, 1024), nil},
		{"value of 1025", pairsOf(1, 2, 1025), binding.ErrValue},
		{"name not UTF-8", []binding.Pair{{Name: "\xff"}}, binding.ErrNotUTF8},
		{"value not UTF-8", []binding.Pair{{Name: "a", Value: "\xc3"}}, binding.ErrNotUTF8},
		{"surrogate", []binding.Pair{{Name: "a", Value: "\xed\xa0\x80"}}, binding.ErrNotUTF8},
		{"duplicate", []binding.Pair{{Name: "a", Value: "1"}, {Name: "b"}, {Name: "a", Value: "2"}}, binding.ErrDuplicate},
		{"duplicate, equal", []binding.Pair{{Name: "a"}, {Name: "a"}}, binding.ErrDuplicate},
	}
}

func TestLimits(t *testing.T) {
	for _, tc := range limits() {
		t.Run(tc.name, func(t *testing.T) {
			given := slices.Clone(tc.pairs)
			_, err := binding.FromPairs(tc.pairs)
			if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
				t.Errorf("FromPairs: %v, want %v", err, tc.want)
			}
			if err != nil && !errors.Is(err, binding.ErrContext) {
				t.Errorf("%v is outside the family", err)
			}
			if !slices.Equal(given, tc.pairs) {
				t.Error("FromPairs reordered its argument")
			}
			m := make(map[string]string)
			for _, p := range tc.pairs {
				m[p.Name] = p.Value
			}
			if _, err := binding.FromMap(m); len(m) == len(tc.pairs) && !errors.Is(err, tc.want) {
				t.Errorf("FromMap: %v, want %v", err, tc.want)
			}
		})
	}
}

// TestErrorsDoNotEcho keeps names and values out of messages, which end in logs.
func TestErrorsDoNotEcho(t *testing.T) {
	const needle = "needle"
	for _, pairs := range [][]binding.Pair{
		{{Name: needle}, {Name: needle}},
		{{Name: needle + "\xff"}},
		{{Name: needle, Value: needle + "\xff"}},
		{{Name: strings.Repeat(needle, 20)}},
		{{Name: "a", Value: strings.Repeat(needle, 200)}},
	} {
		if _, err := binding.FromPairs(pairs); err == nil || strings.Contains(err.Error(), needle) {
			t.Errorf("FromPairs: %v", err)
		}
	}
}

type badEncoding struct {
	name string
	in   []byte
	want error
}

// badEncodings are not canonical encodings.
func badEncodings() []badEncoding {
	seventeen := bytes.Repeat([]byte{1, 'a', 0, 0}, 17)
	for i := range 17 {
		seventeen[4*i+1] = byte('a' + i)
	}
	return []badEncoding{
		{"descending", []byte("\x01b\x00\x00\x01a\x00\x00"), binding.ErrNotCanonical},
		{"repeated", []byte("\x01a\x00\x00\x01a\x00\x00"), binding.ErrNotCanonical},
		{"empty name", []byte("\x00\x00\x00"), binding.ErrName},
		{"name cut", []byte("\x02a"), binding.ErrNotCanonical},
		{"no value", []byte("\x01a"), binding.ErrNotCanonical},
		{"half a length", []byte("\x01a\x00"), binding.ErrNotCanonical},
		{"value cut", []byte("\x01a\x00\x02v"), binding.ErrNotCanonical},
		{"trailing byte", []byte("\x01a\x00\x01v\x00"), binding.ErrNotCanonical},
		{"hostile length", []byte("\x01a\xff\xff"), binding.ErrNotCanonical},
		{"not UTF-8", []byte("\x01\xff\x00\x00"), binding.ErrNotUTF8},
		{"value too long", append([]byte("\x01a\x04\x01"), make([]byte, 1025)...), binding.ErrValue},
		{"name too long", append([]byte{65}, append(bytes.Repeat([]byte{'n'}, 65), 0, 0)...), binding.ErrName},
		{"seventeen pairs", seventeen, binding.ErrTooManyPairs},
		{"above every size", make([]byte, 4097), binding.ErrTooLarge},
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tc := range badEncodings() {
		if _, err := binding.Parse(tc.in); !errors.Is(err, tc.want) || !errors.Is(err, binding.ErrContext) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

func TestNamesBlockRefuses(t *testing.T) {
	var seventeen []byte
	for i := range 17 {
		seventeen = append(seventeen, 1, byte('a'+i))
	}
	for name, tc := range map[string]struct {
		in   []byte
		want error
	}{
		"descending": {[]byte("\x01b\x01a"), binding.ErrNotCanonical},
		"repeated":   {[]byte("\x01a\x01a"), binding.ErrNotCanonical},
		"empty name": {[]byte("\x00"), binding.ErrName},
		"cut":        {[]byte("\x02a"), binding.ErrNotCanonical},
		"hostile":    {[]byte("\xff"), binding.ErrNotCanonical},
		"too long":   {append([]byte{65}, bytes.Repeat([]byte{'n'}, 65)...), binding.ErrName},
		"not UTF-8":  {[]byte("\x01\xff"), binding.ErrNotUTF8},
		"seventeen":  {seventeen, binding.ErrTooManyPairs},
	} {
		if err := binding.CheckNames(tc.in); !errors.Is(err, tc.want) || !errors.Is(err, binding.ErrContext) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x01a\x00\x01v"))
	f.Add([]byte("\x01a\x00\x00\x02ab\x00\x03xyz"))
	f.Add([]byte("\x01b\x00\x00\x01a\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := binding.Parse(in)
		if err != nil {
			if !errors.Is(err, binding.ErrContext) {
				t.Fatalf("%v is outside the family", err)
			}
			return
		}
		if !bytes.Equal(c.Encoding(), in) {
			t.Fatalf("%x re-encodes to %x", in, c.Encoding())
		}
		again, err := binding.FromMap(maps.Collect(c.Pairs()))
		if err != nil || !again.Equal(c) {
			t.Fatalf("accepted by Parse, not by FromMap: %v", err)
		}
	})
}

func FuzzNames(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x01a\x02bc"))
	f.Fuzz(func(t *testing.T, in []byte) {
		names, err := binding.ParseNames(in)
		if (binding.CheckNames(in) == nil) != (err == nil) {
			t.Fatal("CheckNames and ParseNames disagree")
		}
		if err != nil {
			return
		}
		m := make(map[string]string)
		for _, n := range names {
			m[n] = ""
		}
		c, err := binding.FromMap(m)
		if err != nil || c.NamesBlock() != string(in) {
			t.Fatalf("%x rebuilds to %x, %v", in, c.NamesBlock(), err)
		}
	})
}

func TestAllocations(t *testing.T) {
	for pairs, most := range map[int]float64{0: 0, 1: 3, 2: 3} {
		m := make(map[string]string)
		for i := range pairs {
			m[fmt.Sprint("name-", i)] = strings.Repeat("v", 40)
		}
		if got := testing.AllocsPerRun(100, func() { _, _ = binding.FromMap(m) }); got > most {
			t.Errorf("FromMap of %d pairs: %v allocations, want at most %v", pairs, got, most)
		}
	}
}

func BenchmarkFromMap(b *testing.B) {
	for n := range 3 {
		m := make(map[string]string)
		for i := range n {
			m[fmt.Sprint("name-", i)] = "customer-4711/record-0815"
		}
		b.Run(fmt.Sprintf("%d-pairs", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = binding.FromMap(m)
			}
		})
	}
}
