package journal

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/sallyport/sallyport/gateway/audit"
)

// builder writes segments by hand, right or wrong, with the right key.
type builder struct {
	key     audit.PrivateKey
	data    []byte
	header  Header
	prev    audit.Hash
	next    uint64
	records audit.Range
}

func build(key audit.PrivateKey) *builder {
	h := Header{Instance: key.Name()}
	return &builder{key: key, header: h, data: h.append(nil), prev: h.hash()}
}

func (b *builder) batch(change func(*audit.Batch), records ...string) *builder {
	var leaves []audit.Hash
	var body []byte
	for _, r := range records {
		leaves = append(leaves, audit.LeafHash([]byte(r)))
		b.records.Push(leaves[len(leaves)-1])
		body = append(binary.BigEndian.AppendUint32(body, uint32(len(r))), r...)
	}
	tree := audit.NewTree(leaves)
	return b.frame(audit.Batch{Kind: audit.KindBatch, First: b.next, Count: uint32(len(records)), Root: tree.Root()}, body, change)
}

func (b *builder) close(change func(*audit.Batch)) *builder {
	return b.frame(audit.Batch{Kind: audit.KindClose, Count: uint32(b.records.Size()), Root: b.records.Root()}, nil, change)
}

func (b *builder) frame(f audit.Batch, body []byte, change func(*audit.Batch)) *builder {
	f.Instance, f.Prev = b.key.Name(), b.prev
	if change != nil {
		change(&f)
	}
	sig, hash := f.Sign(b.key)
	b.data = appendFrame(b.data, &f, body, sig)
	b.prev = hash
	if f.Kind == audit.KindBatch {
		b.next = f.First + uint64(f.Count)
	}
	return b
}

// A signature does not make a segment right: what the holder of the key signs must
// also fit together.
func TestScanChecksWhatIsSigned(t *testing.T) {
	key := testKey(t)
	scan := func(b *builder) error {
		s, err := Scan("x", 0, b.data, key.Public(), nil)
		if err == nil && !s.Done() {
			err = errors.New("not done")
		}
		return err
	}
	if err := scan(build(key).batch(nil, "a", "b").batch(nil, "c").close(nil)); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*builder{
		"close frame's root":  build(key).batch(nil, "a").close(func(b *audit.Batch) { b.Root[0]++ }),
		"close frame's count": build(key).batch(nil, "a").close(func(b *audit.Batch) { b.Count++ }),
		"close frame's first": build(key).batch(nil, "a").close(func(b *audit.Batch) { b.First++ }),
		"close frame twice":   build(key).batch(nil, "a").close(nil).close(nil),
		"batch after closing": build(key).batch(nil, "a").close(nil).batch(nil, "b"),
		"batch's root":        build(key).batch(func(b *audit.Batch) { b.Root[0]++ }, "a").close(nil),
		"gap in sequence":     build(key).batch(nil, "a").batch(func(b *audit.Batch) { b.First++ }, "b").close(nil),
		"repeated sequence":   build(key).batch(nil, "a").batch(func(b *audit.Batch) { b.First-- }, "b").close(nil),
		"another predecessor": build(key).batch(nil, "a").batch(func(b *audit.Batch) { b.Prev[0]++ }, "b").close(nil),
		"another segment":     build(key).batch(nil, "a").batch(func(b *audit.Batch) { b.Segment++ }, "b").close(nil),
		"another instance":    build(key).batch(nil, "a").close(func(b *audit.Batch) { b.Instance = "x" }),
	} {
		if err := scan(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A chain that nobody has signed is not a log, whatever its length.
func TestScanForgedChain(t *testing.T) {
	key, forger := testKey(t), testKey(t)
	visit := func(*Frame) error { t.Error("visited"); return nil }
	forged := build(forger).batch(nil, "a")
	if s, err := Scan("x", 0, forged.data, key.Public(), visit); err != nil || s.End != 0 || s.Torn == 0 {
		t.Errorf("one batch: %+v, %v", s, err)
	}
	for name, b := range map[string]*builder{
		"two batches":         build(forger).batch(nil, "a").batch(nil, "b"),
		"three batches":       build(forger).batch(nil, "a").batch(nil, "b").batch(nil, "c"),
		"a closed segment":    build(forger).batch(nil, "a").close(nil),
		"frames after it":     build(forger).batch(nil, "a").close(nil).batch(nil, "b"),
		"closed, two batches": build(forger).batch(nil, "a").batch(nil, "b").close(nil),
	} {
		if _, err := Scan("x", 0, b.data, key.Public(), visit); !errors.Is(err, audit.ErrBroken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Signed batches and one that is not: that one may have been in flight.
	b := build(key).batch(nil, "a").batch(nil, "b")
	end := int64(len(b.data))
	b.key = forger
	b.batch(nil, "c")
	if s, err := Scan("x", 0, b.data, key.Public(), nil); err != nil || s.End != end || s.Count != 2 || s.Torn == 0 {
		t.Errorf("one forged batch at the end: %+v, %v", s, err)
	}
	b.batch(nil, "d")
	if _, err := Scan("x", 0, b.data, key.Public(), nil); !errors.Is(err, audit.ErrBroken) {
		t.Errorf("two forged batches at the end: %v", err)
	}
}
