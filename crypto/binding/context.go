// Package binding gives the things that a ciphertext is bound to one encoding
// each: the caller's encryption context ([Context]) and the lists of fields
// that enter key derivations, MACs and associated data ([Encode]).
//
// Both encodings are injective: different inputs have different encodings. A
// ciphertext bound to one can then not be presented under another, which is
// what the boundary between two fields or two pairs would otherwise allow.
package binding

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of a context. They bound what a policy must look at and what an audit
// record must carry; the largest context fits in one page.
const (
	MaxPairs     = 16   // pairs in a context
	MaxNameLen   = 64   // bytes of a name; at least 1
	MaxValueLen  = 1024 // bytes of a value; may be empty
	MaxEncodeLen = 4096 // bytes of the whole encoding
)

// ErrContext is in the chain of every error about a context. The messages name
// the broken rule and never repeat names or values.
var ErrContext = errors.New("binding: invalid context")

// The rules that a context can break.
var (
	ErrTooManyPairs = fmt.Errorf("%w: more than %d pairs", ErrContext, MaxPairs)
	ErrName         = fmt.Errorf("%w: a name must have 1 to %d bytes", ErrContext, MaxNameLen)
	ErrValue        = fmt.Errorf("%w: a value may have at most %d bytes", ErrContext, MaxValueLen)
	ErrNotUTF8      = fmt.Errorf("%w: a name or value is not UTF-8", ErrContext)
	ErrTooLarge     = fmt.Errorf("%w: larger than %d bytes when encoded", ErrContext, MaxEncodeLen)
	ErrDuplicate    = fmt.Errorf("%w: a name occurs twice", ErrContext)
	ErrNotCanonical = fmt.Errorf("%w: not the canonical encoding", ErrContext)
)

// Pair is one name and value of a context.
type Pair struct{ Name, Value string }

// Context is an encryption context: a set of pairs that the caller states when
// sealing and must state again, unchanged, when opening. It is not secret: it
// is policy input and appears in audit records. It is immutable and safe for
// concurrent use. The zero value is the empty context.
//
// Names and values are compared as bytes. Nothing is normalised: "é" in two
// Unicode forms is two values.
type Context struct{ c *context } // nil when empty

type context struct {
	digest  [sha256.Size]byte
	encoded string // the canonical encoding
	names   string // the names block
	pairs   []Pair // sorted by name
}

// digestDomain is the domain of [Context.Digest]. It carries the version of
// the encoding of contexts.
const digestDomain = "sallyport/v1/context"

// digestPrefix is everything in the digest's input before the encoding's length.
var digestPrefix = AppendField(nil, digestDomain)

// emptyDigest is computed once, so that callers without a context do not pay
// for one.
var emptyDigest = sha256.Sum256(Encode(digestDomain, nil))

// FromMap makes a context of m. Errors are in the family of [ErrContext].
func FromMap(m map[string]string) (Context, error) {
	if len(m) > MaxPairs {
		return Context{}, ErrTooManyPairs
	}
	pairs := make([]Pair, 0, len(m))
	for name, value := range m {
		pairs = append(pairs, Pair{name, value})
	}
	return build(pairs)
}

// FromPairs makes a context of pairs in any order, as a transport delivers
// them: it fails with [ErrDuplicate] if a name occurs twice, even with the same
// value. The slice is not kept and not reordered.
func FromPairs(pairs []Pair) (Context, error) {
	if len(pairs) > MaxPairs {
		return Context{}, ErrTooManyPairs
	}
	return build(slices.Clone(pairs))
}

// build checks pairs and makes the context that owns them.
//
// The encoding is, for each pair in ascending order of the names' bytes,
//
//	┌─────────────────┬──────┬──────────────────┬───────┐
//	│ name length (1) │ name │ value length (2) │ value │
//	└─────────────────┴──────┴──────────────────┴───────┘
//
// with big-endian lengths and nothing before, between or after the pairs. The
// empty context encodes to no bytes.
func build(pairs []Pair) (Context, error) {
	if len(pairs) == 0 {
		return Context{}, nil
	}
	slices.SortFunc(pairs, func(a, b Pair) int { return strings.Compare(a.Name, b.Name) })
	size, namesSize := 0, 0
	for i, p := range pairs {
		if err := p.check(); err != nil {
			return Context{}, err
		}
		if i > 0 && p.Name == pairs[i-1].Name {
			return Context{}, ErrDuplicate
		}
		size += 1 + len(p.Name) + 2 + len(p.Value)
		namesSize += 1 + len(p.Name)
	}
	if size > MaxEncodeLen {
		return Context{}, ErrTooLarge
	}
	// One buffer holds the digest's input, whose tail is the encoding, and
	// after it the names block.
	start := len(digestPrefix) + prefixLen
	var small [512]byte // on the stack: a typical context fits
	buf := slices.Grow(small[:0], start+size+namesSize)
	buf = append(buf, digestPrefix...)
	buf = append(buf, 0, 0, 0, 0, 0, 0, byte(size>>8), byte(size))
	for _, p := range pairs {
		buf = append(append(buf, byte(len(p.Name))), p.Name...)
		buf = append(append(buf, byte(len(p.Value)>>8), byte(len(p.Value))), p.Value...)
	}
	digest := sha256.Sum256(buf)
	end := len(buf)
	for _, p := range pairs {
		buf = append(append(buf, byte(len(p.Name))), p.Name...)
	}
	all := string(buf)
	return Context{&context{digest, all[start:end], all[end:], pairs}}, nil
}

// check applies the rules for one pair.
func (p Pair) check() error {
	switch {
	case len(p.Name) == 0 || len(p.Name) > MaxNameLen:
		return ErrName
	case len(p.Value) > MaxValueLen:
		return ErrValue
	case !utf8.ValidString(p.Name) || !utf8.ValidString(p.Value):
		return ErrNotUTF8
	}
	return nil
}

// Parse reads a canonical encoding. It accepts exactly what [Context.Encoding]
// writes: an encoding in another order, with a repeated name, cut short or with
// bytes left over is refused.
func Parse(encoded []byte) (Context, error) {
	if len(encoded) > MaxEncodeLen {
		return Context{}, ErrTooLarge
	}
	var pairs []Pair
	for rest := encoded; len(rest) > 0; {
		if len(pairs) == MaxPairs {
			return Context{}, ErrTooManyPairs
		}
		name, after, ok := cut(rest, 1)
		if !ok {
			return Context{}, ErrNotCanonical
		}
		value, after, ok := cut(after, 2)
		if !ok {
			return Context{}, ErrNotCanonical
		}
		if n := len(pairs); n > 0 && string(name) <= pairs[n-1].Name {
			return Context{}, ErrNotCanonical
		}
		pairs = append(pairs, Pair{string(name), string(value)})
		rest = after
	}
	return build(pairs)
}

// cut splits b after the string at its front, whose big-endian length has
// width bytes.
func cut(b []byte, width int) (field, rest []byte, ok bool) {
	if len(b) < width {
		return nil, nil, false
	}
	n := 0
	for _, x := range b[:width] {
		n = n<<8 | int(x)
	}
	if b = b[width:]; len(b) < n {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// Digest returns SHA-256 over [Encode]("sallyport/v1/context", encoding). It
// stands for the context in every derivation.
func (c Context) Digest() [sha256.Size]byte {
	if c.c == nil {
		return emptyDigest
	}
	return c.c.digest
}

// Encoding returns the canonical encoding, at most [MaxEncodeLen] bytes.
func (c Context) Encoding() []byte {
	if c.c == nil {
		return nil
	}
	return []byte(c.c.encoded)
}

// NamesBlock returns the names alone, as an envelope carries them: for each
// name in ascending order one byte of length and the name. It is a string
// because it is shared and must not change.
func (c Context) NamesBlock() string {
	if c.c == nil {
		return ""
	}
	return c.c.names
}

// Len returns the number of pairs.
func (c Context) Len() int {
	if c.c == nil {
		return 0
	}
	return len(c.c.pairs)
}

// Pairs iterates over names and values in ascending order of the names.
func (c Context) Pairs() iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		if c.c == nil {
			return
		}
		for _, p := range c.c.pairs {
			if !yield(p.Name, p.Value) {
				return
			}
		}
	}
}

// Value returns the value of a name and whether the context has it.
func (c Context) Value(name string) (value string, ok bool) {
	for n, v := range c.Pairs() {
		if n == name {
			return v, true
		}
	}
	return "", false
}

// Names returns the names in ascending order.
func (c Context) Names() []string {
	names := make([]string, 0, c.Len())
	for name := range c.Pairs() {
		names = append(names, name)
	}
	return names
}

// Equal reports whether two contexts have the same pairs.
func (c Context) Equal(d Context) bool { return c.Digest() == d.Digest() }
