package tlog

import (
	"bytes"
	"errors"
	"testing"

	"github.com/sallyport/sallyport/gateway/audit"
)

func FuzzParseLeaf(f *testing.F) {
	f.Add(Leaf{Instance: "audit.example/gateway-1", Segment: 1, First: 2, Count: 3}.Bytes())
	f.Add([]byte(leafDomain))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLeaf(b)
		if err != nil {
			if !errors.Is(err, ErrLeafSyntax) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if !bytes.Equal(l.Bytes(), b) {
			t.Fatalf("%x parses, but is written %x", b, l.Bytes())
		}
	})
}

func FuzzParseCheckpoint(f *testing.F) {
	key, err := audit.GenerateKey("audit.example/gateway-1")
	if err != nil {
		f.Fatal(err)
	}
	good, err := Checkpoint{Size: 7}.sign(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseCheckpoint(b, key.Public()); err == nil && c.Size != 7 {
			t.Fatalf("accepts %q", b)
		}
	})
}

func FuzzParseTile(f *testing.F) {
	for _, s := range []string{"tile/entries/000", "tile/0/x001/234.p/17", "tile/7/000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if tile, ok := parseTile(s); ok && tile.path() != s {
			t.Fatalf("%q parses, but is written %q", s, tile.path())
		}
	})
}
