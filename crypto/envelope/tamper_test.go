package envelope_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/envelope"
)

// structural lists the bits that Parse may refuse with a typed error: they say
// how the rest is to be read. Every other bit of every suite must reach the
// one opaque failure.
func structural(raw []byte, at int) bool {
	if raw[0] == 0xF6 {
		return at < 2 // magic, suite
	}
	namesLen := int(raw[6])<<8 | int(raw[7])
	// magic, format version, suite, flags, length of names; and the names,
	// which can become unsorted, badly cut or no UTF-8.
	return at < 8 || at >= 60 && at < 60+namesLen
}

func TestEveryBit(t *testing.T) {
	plaintext := []byte("sixteen bytes!!!and a bit")
	for _, c := range []binding.Context{{}, context(t, "a", "1", "table", "users")} {
		for _, k := range constructions(t, 1, ownScope()) {
			raw, err := k.seal(plaintext, c)
			if err != nil {
				t.Fatal(err)
			}
			for bit := range 8 * len(raw) {
				mutated := bytes.Clone(raw)
				mutated[bit/8] ^= 1 << (bit % 8)
				m, err := envelope.Parse(mutated)
				if err != nil {
					if !structural(raw, bit/8) || !errors.Is(err, envelope.ErrFormat) {
						t.Errorf("%v: bit %d of byte %d: Parse: %v", k.suite, bit%8, bit/8, err)
					}
					continue
				}
				if _, err := k.open(m, c, plaintext); err != envelope.ErrOpen {
					t.Errorf("%v: bit %d of byte %d: %v", k.suite, bit%8, bit/8, err)
				}
			}
		}
	}
}

// TestEveryContextBit flips each bit of the encoded context.
func TestEveryContextBit(t *testing.T) {
	c := context(t, "a", "1", "table", "users")
	for _, k := range constructions(t, 1, ownScope()) {
		raw, _ := k.seal([]byte("x"), c)
		m, _ := envelope.Parse(raw)
		tried := 0
		for bit := range 8 * len(c.Encoding()) {
			enc := c.Encoding()
			enc[bit/8] ^= 1 << (bit % 8)
			other, err := binding.Parse(enc)
			if err != nil {
				continue // no context has this encoding
			}
			tried++
			if _, err := k.open(m, other, []byte("x")); err != envelope.ErrOpen {
				t.Errorf("%v: context bit %d: %v", k.suite, bit, err)
			}
		}
		if tried < 50 {
			t.Errorf("only %d of the flips gave a context", tried)
		}
	}
}

func TestEveryTruncation(t *testing.T) {
	plaintext := []byte("sixteen bytes!!!and a bit")
	c := context(t, "a", "1")
	for _, k := range constructions(t, 1, ownScope()) {
		raw, _ := k.seal(plaintext, c)
		for n := range len(raw) {
			m, err := envelope.Parse(raw[:n])
			if n < envelope.SealedSize(k.suite, c, 0) {
				if !errors.Is(err, envelope.ErrMalformed) {
					t.Errorf("%v cut to %d: Parse: %v", k.suite, n, err)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := k.open(m, c, plaintext); err != envelope.ErrOpen {
				t.Errorf("%v cut to %d: %v", k.suite, n, err)
			}
		}
		m, err := envelope.Parse(append(bytes.Clone(raw), 0))
		if err == nil {
			_, err = k.open(m, c, plaintext)
		}
		if k.suite == envelope.SuiteMAC && !errors.Is(err, envelope.ErrMalformed) ||
			k.suite != envelope.SuiteMAC && err != envelope.ErrOpen {
			t.Errorf("%v with a byte more: %v", k.suite, err)
		}
	}
}

// headerWith builds a standard envelope of zeros around valid beginnings.
func headerWith(change func(raw []byte) []byte) []byte {
	raw := make([]byte, 108)
	copy(raw, "\xf5SP\x01\x01")
	raw[23], raw[27] = 1, 1 // keyring, version
	return change(raw)
}

// readCase is an input of Parse and the error it must give.
type readCase struct {
	name string
	raw  []byte
	want error
}

// unreadable lists inputs at the edges of the format, a few of them good.
func unreadable() []readCase {
	set := func(at int, b ...byte) func([]byte) []byte {
		return func(raw []byte) []byte { copy(raw[at:], b); return raw }
	}
	names := func(block string) func([]byte) []byte {
		return func(raw []byte) []byte {
			raw[6], raw[7] = byte(len(block)>>8), byte(len(block))
			return append(append(raw[:60:60], block...), raw[60:]...)
		}
	}
	compact := func(suite byte, n int) []byte {
		return append([]byte{0xF6, suite, 0, 0, 0, 1}, make([]byte, n-6)...)
	}
	return []readCase{
		{"good", headerWith(set(0)), nil},
		{"good with names", headerWith(names("\x01a\x02bc")), nil},
		{"empty", nil, envelope.ErrMalformed},
		{"text", []byte("sp1:AAAA"), envelope.ErrMalformed},
		{"other magic", headerWith(set(1, 'X')), envelope.ErrMalformed},
		{"magic alone", []byte("\xf5SP\x01"), envelope.ErrMalformed},
		{"format version 0", headerWith(set(3, 0)), envelope.ErrUnknownVersion},
		{"format version 2", headerWith(set(3, 2)), envelope.ErrUnknownVersion},
		{"version 2, short", []byte("\xf5SP\x02"), envelope.ErrUnknownVersion},
		{"suite 0", headerWith(set(4, 0)), envelope.ErrUnknownSuite},
		{"compact suite", headerWith(set(4, 2)), envelope.ErrUnknownSuite},
		{"flag", headerWith(set(5, 0x80)), envelope.ErrUnknownFlag},
		{"names missing", headerWith(set(7, 1)), envelope.ErrMalformed},
		{"hostile names length", headerWith(set(6, 0xff, 0xff)), envelope.ErrMalformed},
		{"keyring zero", headerWith(set(23, 0)), envelope.ErrMalformed},
		{"version zero", headerWith(set(27, 0)), envelope.ErrMalformed},
		{"names unsorted", headerWith(names("\x01b\x01a")), envelope.ErrMalformed},
		{"names repeated", headerWith(names("\x01a\x01a")), envelope.ErrMalformed},
		{"name empty", headerWith(names("\x00")), envelope.ErrMalformed},
		{"name cut", headerWith(names("\x02a")), envelope.ErrMalformed},
		{"name not UTF-8", headerWith(names("\x01\xff")), envelope.ErrMalformed},
		{"compact alone", []byte{0xF6}, envelope.ErrMalformed},
		{"compact suite 1", compact(1, 100), envelope.ErrUnknownSuite},
		{"compact suite 5", compact(5, 100), envelope.ErrUnknownSuite},
		{"compact", compact(2, 54), nil},
		{"compact short", compact(2, 53), envelope.ErrMalformed},
		{"siv", compact(3, 22), nil},
		{"siv short", compact(3, 21), envelope.ErrMalformed},
		{"mac", compact(4, 38), nil},
		{"mac short", compact(4, 37), envelope.ErrMalformed},
		{"mac long", compact(4, 39), envelope.ErrMalformed},
		{"compact version zero", append([]byte{0xF6, 2}, make([]byte, 52)...), envelope.ErrMalformed},
		{"standard too large", append(headerWith(set(0)), make([]byte, envelope.MaxPlaintext+1)...), envelope.ErrMalformed},
		{"compact too large", compact(2, 54+envelope.MaxPlaintext+1), envelope.ErrMalformed},
		{"above every size", make([]byte, envelope.MaxSize+1), envelope.ErrMalformed},
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tc := range unreadable() {
		m, err := envelope.Parse(tc.raw)
		if !errors.Is(err, tc.want) || err != nil && !errors.Is(err, envelope.ErrFormat) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
		if err != nil && m.Suite() != 0 {
			t.Errorf("%s: a message beside the error", tc.name)
		}
	}
}

func TestParseDoesNotAllocate(t *testing.T) {
	inputs := [][]byte{
		headerWith(func(raw []byte) []byte { return raw }),
		headerWith(func(raw []byte) []byte { raw[6], raw[7] = 0xff, 0xff; return raw }),
		headerWith(func(raw []byte) []byte { raw[60] = 0xff; raw[7] = 40; return append(raw, raw...) }),
	}
	for i, raw := range inputs {
		if n := testing.AllocsPerRun(100, func() { _, _ = envelope.Parse(raw) }); n != 0 {
			t.Errorf("input %d: %v allocations", i, n)
		}
	}
}

// badTexts are not text forms.
var badTexts = []struct{ name, text string }{
	{"empty", ""},
	{"prefix alone", "sp1:"},
	{"no colon", "sp1"},
	{"no prefix", "AAAA"},
	{"upper-case prefix", "SP1:AAAA"},
	{"other version", "sp2:AAAA"},
	{"leading space", " sp1:AAAA"},
	{"trailing space", "sp1:AAAA "},
	{"trailing line feed", "sp1:AAAA\n"},
	{"line feed inside", "sp1:AA\nAA"},
	{"line break inside", "sp1:AA\r\nAA"},
	{"impossible length", "sp1:A"},
	{"padding", "sp1:AAA="},
	{"double padding", "sp1:AA=="},
	{"plus", "sp1:+AAA"},
	{"slash", "sp1:/AAA"},
	{"unused bits, one byte", "sp1:AB"},
	{"unused bits, two bytes", "sp1:AAB"},
}

func TestDecodeTextRefuses(t *testing.T) {
	for _, tc := range append(badTexts, struct{ name, text string }{"not UTF-8", "sp1:\xff\xff"}) {
		if raw, err := envelope.DecodeText(tc.text); !errors.Is(err, envelope.ErrText) || !errors.Is(err, envelope.ErrFormat) {
			t.Errorf("%s: %x, %v", tc.name, raw, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, k := range constructions(f, 1, ownScope()) {
		raw, _ := k.seal([]byte("plaintext"), context(f, "a", "1"))
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := envelope.Parse(raw)
		if err != nil {
			if !errors.Is(err, envelope.ErrFormat) {
				t.Fatalf("%v is outside the family", err)
			}
			return
		}
		names, _ := m.ContextNames()
		if m.PlaintextSize() < 0 || m.Version() == 0 || m.Suite() == 0 || len(names) > binding.MaxPairs ||
			m.Overhead()+m.PlaintextSize() != len(raw) {
			t.Fatal("a header out of its limits was accepted")
		}
	})
}

func FuzzDecodeText(f *testing.F) {
	f.Add("sp1:AAAA")
	f.Add("sp1:AB")
	f.Add("sp1:AA\nAA")
	f.Fuzz(func(t *testing.T, text string) {
		raw, err := envelope.DecodeText(text)
		if err == nil && envelope.EncodeText(raw) != text {
			t.Fatalf("%q decodes, and encodes to %q", text, envelope.EncodeText(raw))
		}
	})
}

// FuzzOpen mutates envelopes: whatever opens must be, byte for byte, what was
// sealed, and every failure must be the one.
func FuzzOpen(f *testing.F) {
	c := context(f, "a", "1")
	plaintext := []byte("plaintext")
	all := constructions(f, 1, ownScope())
	sealed := make([][]byte, len(all))
	for i, k := range all {
		raw, err := k.seal(plaintext, c)
		if err != nil {
			f.Fatal(err)
		}
		sealed[i] = raw
		f.Add(uint8(i), uint16(0), []byte{}, uint16(0))
		f.Add(uint8(i), uint16(30), []byte{1, 2}, uint16(1))
	}
	f.Fuzz(func(t *testing.T, which uint8, at uint16, replace []byte, cut uint16) {
		i := int(which) % len(all)
		whole := sealed[i]
		from := int(at) % (len(whole) + 1)
		to := min(from+int(cut), len(whole))
		mutated := append(append(bytes.Clone(whole[:from]), replace...), whole[to:]...)
		m, err := envelope.Parse(mutated)
		if err != nil {
			return
		}
		for j, k := range all {
			got, err := k.open(m, c, plaintext)
			switch {
			case err == nil && (!bytes.Equal(mutated, whole) || !bytes.Equal(got, plaintext)):
				t.Fatalf("%v opened a forgery: %x", all[j].suite, mutated)
			case err != nil && err != envelope.ErrOpen:
				t.Fatalf("%v: another failure: %v", all[j].suite, err)
			case err != nil && i == j && bytes.Equal(mutated, whole):
				t.Fatalf("%v: does not open unchanged", all[j].suite)
			}
		}
	})
}
