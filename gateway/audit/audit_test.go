package audit_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/gateway/audit"
)

func newKey(t testing.TB) audit.PrivateKey {
	t.Helper()
	key, err := audit.GenerateKey("audit.example/gateway-1")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func leaves(n int) []audit.Hash {
	l := make([]audit.Hash, n)
	for i := range l {
		l[i] = audit.LeafHash(fmt.Append(nil, i))
	}
	return l
}

// The hashes are those of another implementation, golang.org/x/mod/sumdb/tlog.
func TestTreeAgainstTlog(t *testing.T) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var out []tlog.Hash
		for _, i := range indexes {
			out = append(out, stored[i])
		}
		return out, nil
	})
	var growing audit.Range
	for n := range 131 {
		want, err := tlog.TreeHash(int64(n), reader)
		if err != nil {
			t.Fatal(err)
		}
		tree := audit.NewTree(leaves(n))
		if tree.Root() != audit.Hash(want) || growing.Root() != tree.Root() {
			t.Fatalf("size %d: tree %x, range %x, want %x", n, tree.Root(), growing.Root(), want)
		}
		for i := range n {
			proof, err := tlog.ProveRecord(int64(n), int64(i), reader)
			if err != nil {
				t.Fatal(err)
			}
			path := tree.Path(i)
			if len(path) != len(proof) {
				t.Fatalf("path of %d in %d has %d steps, want %d", i, n, len(path), len(proof))
			}
			for j := range path {
				if path[j] != audit.Hash(proof[j]) {
					t.Fatalf("path of %d in %d differs at step %d", i, n, j)
				}
			}
		}
		growing.Push(audit.LeafHash(fmt.Append(nil, n)))
		hashes, err := tlog.StoredHashes(int64(n), fmt.Append(nil, n), reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
	}
}

// sign returns the receipt of record i of a batch of n.
func sign(key audit.PrivateKey, n, i int) audit.Receipt {
	tree := audit.NewTree(leaves(n))
	b := audit.Batch{
		Kind: audit.KindBatch, Instance: key.Name(), Segment: 7, First: 1000,
		Count: uint32(n), Prev: audit.LeafHash(nil), Root: tree.Root(),
	}
	sig, hash := b.Sign(key)
	if hash != b.FrameHash(sig) {
		panic("the frame has two hashes")
	}
	return audit.Receipt{
		Instance: key.Name(), Segment: 7, First: 1000, Count: uint32(n), Index: uint32(i),
		Record: leaves(n)[i], Prev: b.Prev, Path: tree.Path(i), Signature: sig,
	}
}

func TestReceipt(t *testing.T) {
	key := newKey(t)
	for _, n := range []int{1, 2, 3, 7, 32, 100} {
		for i := range n {
			text := sign(key, n, i).String()
			r, err := audit.ParseReceipt(text)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Verify(key.Public()); err != nil {
				t.Errorf("record %d of %d: %v", i, n, err)
			}
			if r.String() != text {
				t.Errorf("record %d of %d: text changes", i, n)
			}
		}
	}
}

// Every single-character change of a receipt's text is noticed.
func TestReceiptChanged(t *testing.T) {
	key := newKey(t)
	text := sign(key, 5, 3).String()
	for i := range text {
		for _, c := range []byte("Aq_9 .\n") {
			if text[i] == c {
				continue
			}
			changed := text[:i] + string(c) + text[i+1:]
			r, err := audit.ParseReceipt(changed)
			if err == nil {
				err = r.Verify(key.Public())
			}
			if !errors.Is(err, audit.ErrReceiptSyntax) && !errors.Is(err, audit.ErrReceiptSignature) {
				t.Fatalf("character %d set to %q: %v", i, c, err)
			}
		}
	}
	for i := range text {
		if _, err := audit.ParseReceipt(text[:i]); !errors.Is(err, audit.ErrReceiptSyntax) {
			t.Fatalf("cut to %d characters: %v", i, err)
		}
	}
	other := newKey(t)
	r, _ := audit.ParseReceipt(text)
	if err := r.Verify(other.Public()); !errors.Is(err, audit.ErrReceiptSignature) {
		t.Errorf("under another key of the same name: %v", err)
	}
}

// A receipt is made for every call.
func TestReceiptIsCheap(t *testing.T) {
	r := sign(newKey(t), 32, 20)
	if n := testing.AllocsPerRun(100, func() { _ = r.String() }); n > 1 {
		t.Errorf("%v allocations", n)
	}
	if n := len(r.String()); n > 480 {
		t.Errorf("%d characters", n)
	}
}

func BenchmarkReceiptString(b *testing.B) {
	r := sign(newKey(b), 32, 20)
	b.ReportAllocs()
	for b.Loop() {
		_ = r.String()
	}
}

func FuzzParseReceipt(f *testing.F) {
	key := newKey(f)
	f.Add(sign(key, 1, 0).String())
	f.Add(sign(key, 9, 8).String())
	f.Add("sp-receipt1.")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := audit.ParseReceipt(text)
		if err != nil {
			if !errors.Is(err, audit.ErrReceiptSyntax) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if r.String() != text {
			t.Fatalf("%q parses, but is written %q", text, r)
		}
		_ = r.Verify(key.Public())
	})
}

// A batch's fields are all signed, and the two kinds do not mix.
func TestBatchBinds(t *testing.T) {
	key := newKey(t)
	good := audit.Batch{Kind: audit.KindBatch, Instance: key.Name(), Segment: 1, First: 2, Count: 3}
	sig, _ := good.Sign(key)
	if !good.Verify(key.Public(), sig) {
		t.Fatal("does not verify")
	}
	for name, change := range map[string]func(*audit.Batch){
		"kind":     func(b *audit.Batch) { b.Kind = audit.KindClose },
		"instance": func(b *audit.Batch) { b.Instance += "x" },
		"segment":  func(b *audit.Batch) { b.Segment++ },
		"first":    func(b *audit.Batch) { b.First++ },
		"count":    func(b *audit.Batch) { b.Count++ },
		"prev":     func(b *audit.Batch) { b.Prev[31]++ },
		"root":     func(b *audit.Batch) { b.Root[0]++ },
	} {
		b := good
		change(&b)
		if b.Verify(key.Public(), sig) {
			t.Errorf("%s can be changed", name)
		}
	}
	if payload := good.AppendPayload(nil); !bytes.Contains(payload[:30], []byte{0}) {
		t.Error("payload could be the text of a note")
	}
}

// Keys are those of golang.org/x/mod/sumdb/note, in both directions.
func TestKeysAreNoteKeys(t *testing.T) {
	key := newKey(t)
	signer, err := note.NewSigner(strings.TrimSuffix(string(key.Reveal()), "\n"))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(key.Public().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []note.Signer{signer, key} {
		msg, err := note.Sign(&note.Note{Text: "hello\n"}, s)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []note.Verifier{verifier, key.Public()} {
			if _, err := note.Open(msg, note.VerifierList(v)); err != nil {
				t.Error(err)
			}
		}
	}
	skey, vkey, err := note.GenerateKey(nil, "other.example/log")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := audit.ParsePrivateKey([]byte(skey))
	if err != nil {
		t.Fatal(err)
	}
	if theirs.Public().String() != vkey {
		t.Errorf("public half %s, want %s", theirs.Public(), vkey)
	}
}

func TestParseKeyRefuses(t *testing.T) {
	key := newKey(t)
	private, public := string(key.Reveal()), key.Public().String()
	for _, bad := range []string{
		"", "x", private[:len(private)-3], strings.Replace(private, "gateway-1", "gateway-2", 1),
		public, private + "\n", strings.Replace(private, "+", " ", 1),
	} {
		if _, err := audit.ParsePrivateKey([]byte(bad)); !errors.Is(err, audit.ErrKey) {
			t.Errorf("private key %q: %v", bad, err)
		} else if strings.Contains(err.Error(), "gateway") {
			t.Errorf("the error echoes its input: %v", err)
		}
	}
	for _, bad := range []string{"", "a+b", private, strings.Replace(public, "gateway-1", "gateway-2", 1), public + " "} {
		if _, err := audit.ParsePublicKey([]byte(bad)); !errors.Is(err, audit.ErrKey) {
			t.Errorf("public key %q: %v", bad, err)
		}
	}
	for _, name := range []string{"", "a b", "a+b", "a\x00b", strings.Repeat("x", 256)} {
		if _, err := audit.GenerateKey(name); !errors.Is(err, audit.ErrKey) {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func TestPrivateKeyDoesNotPrint(t *testing.T) {
	key := newKey(t)
	// PRIVATE+KEY+name+hash+base64, which may hold a + of its own.
	text := strings.SplitN(strings.TrimSpace(string(key.Reveal())), "+", 5)[4]
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	seed := raw[len(raw)-ed25519.SeedSize:]
	forms := []string{text[20:], hex.EncodeToString([]byte(text)), string(seed), hex.EncodeToString(seed), strings.Trim(fmt.Sprint(seed), "[]"), fmt.Sprintf("%#v", seed)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		for _, v := range []any{key, &key, struct{ k audit.PrivateKey }{key}} {
			out := fmt.Sprintf(verb, v)
			for _, form := range forms {
				if strings.Contains(out, form) {
					t.Errorf("%s prints the key", verb)
				}
			}
		}
	}
}
