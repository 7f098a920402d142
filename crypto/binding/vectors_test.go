package binding_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/crypto/testvectors"
)

var update = flag.Bool("update", false, "write the published vectors anew")

const vectorFile = "../testvectors/context.json"

func resultOf(err error) testvectors.Result {
	for result, target := range map[testvectors.Result]error{
		testvectors.TooManyPairs: binding.ErrTooManyPairs, testvectors.Name: binding.ErrName,
		testvectors.Value: binding.ErrValue, testvectors.NotUTF8: binding.ErrNotUTF8,
		testvectors.TooLarge: binding.ErrTooLarge, testvectors.Duplicate: binding.ErrDuplicate,
		testvectors.NotCanonical: binding.ErrNotCanonical,
	} {
		if errors.Is(err, target) {
			return result
		}
	}
	if err == nil {
		return testvectors.OK
	}
	return testvectors.Result("unexpected: " + err.Error())
}

func fromVector(pairs []testvectors.Pair) (binding.Context, error) {
	var list []binding.Pair
	for _, p := range pairs {
		list = append(list, binding.Pair{Name: string(p.Name), Value: string(p.Value)})
	}
	return binding.FromPairs(list)
}

func TestPublishedContexts(t *testing.T) {
	want, err := testvectors.Encode("Sallyport encryption context: encoding, names block and digest.", generate())
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(vectorFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got, err := os.ReadFile(vectorFile); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what the generator writes (%v): the format changed, or run the test with -update", vectorFile, err)
	}
	vectors, err := testvectors.Contexts()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) { runContext(t, v) })
	}
}

func runContext(t *testing.T, v testvectors.Context) {
	check := func(what string, c binding.Context, err error) {
		t.Helper()
		if got := resultOf(err); got != v.Result {
			t.Fatalf("%s: %s, want %s", what, got, v.Result)
		}
		digest := c.Digest()
		if err == nil && (!bytes.Equal(c.Encoding(), v.Encoding) || c.NamesBlock() != string(v.Names) || !bytes.Equal(digest[:], v.Digest)) {
			t.Errorf("%s: encoding %x, names %x, digest %x", what, c.Encoding(), c.NamesBlock(), digest)
		}
	}
	if v.Result == testvectors.OK || v.Pairs != nil {
		c, err := fromVector(v.Pairs)
		check("from pairs", c, err)
	}
	if v.Result == testvectors.OK || v.Pairs == nil {
		c, err := binding.Parse(v.Encoding)
		check("parsed", c, err)
	}
}

// generate makes the vectors from the tables that the other tests run.
func generate() []testvectors.Context {
	var out []testvectors.Context
	fromPairs := func(name string, pairs ...binding.Pair) {
		v := testvectors.Context{Name: name}
		for _, p := range pairs {
			v.Pairs = append(v.Pairs, testvectors.Pair{Name: []byte(p.Name), Value: []byte(p.Value)})
		}
		c, err := binding.FromPairs(pairs)
		if v.Result = resultOf(err); err == nil {
			digest := c.Digest()
			v.Encoding, v.Names, v.Digest = c.Encoding(), []byte(c.NamesBlock()), digest[:]
		}
		out = append(out, v)
	}
	fromPairs("empty")
	fromPairs("one pair", binding.Pair{Name: "tenant", Value: "acme"})
	fromPairs("empty value", binding.Pair{Name: "a", Value: ""})
	fromPairs("sorted by bytes, not by letters", binding.Pair{Name: "b"}, binding.Pair{Name: "é"}, binding.Pair{Name: "B"}, binding.Pair{Name: "aa"}, binding.Pair{Name: "a"})
	fromPairs("control characters", binding.Pair{Name: "\x00", Value: "\x00\n"})
	fromPairs("value above 255 bytes", binding.Pair{Name: "a", Value: strings.Repeat("v", 300)})
	fromPairs("composed", binding.Pair{Name: "a", Value: "\u00e9"})
	fromPairs("decomposed: another context", binding.Pair{Name: "a", Value: "e\u0301"})
	for _, tc := range limits() {
		fromPairs(tc.name, tc.pairs...)
	}
	for _, tc := range badEncodings() {
		if len(tc.in) < 4096 {
			out = append(out, testvectors.Context{Name: "encoding: " + tc.name, Encoding: tc.in, Result: resultOf(tc.want)})
		}
	}
	return out
}
