package tlog

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/audittest"
)

// A checkpoint that the log's key has signed is checked against the files all the
// same: by Verify, and by the gateway before it goes on.
func TestSignedCheckpointThatIsWrong(t *testing.T) {
	key, err := audit.GenerateKey("audit.example/gateway-1")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "audit")
	if err := Create(dir, key); err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), Config{Dir: dir, Key: key, SegmentRecords: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := l.Append(t.Context(), audittest.Record(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	good, err := readCheckpoint(dir, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	wrong := good
	wrong.Root[0]++
	for name, c := range map[string]Checkpoint{
		"root":           wrong,
		"size too small": {Size: 2, Root: good.Root},
		"size too large": {Size: 4, Root: good.Root},
	} {
		msg, err := c.sign(key)
		if err != nil {
			t.Fatal(err)
		}
		if err := writeCheckpoint(dir, msg); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(dir, key.Public(), VerifyOptions{}); !errors.Is(err, audit.ErrBroken) {
			t.Errorf("%s: verify: %v", name, err)
		}
		if _, err := Open(t.Context(), Config{Dir: dir, Key: key}); !errors.Is(err, audit.ErrBroken) {
			t.Errorf("%s: open: %v", name, err)
		}
	}
}

// Base64 has unused bits at its end, which a lenient decoder does not look at.
func TestCheckpointHasOneForm(t *testing.T) {
	key, err := audit.GenerateKey("audit.example/gateway-1")
	if err != nil {
		t.Fatal(err)
	}
	msg, err := Checkpoint{Size: 1}.sign(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseCheckpoint(msg, key.Public()); err != nil {
		t.Fatal(err)
	}
	for i := range msg {
		for c := range 256 {
			changed := bytes.Clone(msg)
			changed[i] = byte(c)
			if _, err := ParseCheckpoint(changed, key.Public()); err == nil && byte(c) != msg[i] {
				t.Fatalf("byte %d can be %q", i, byte(c))
			}
		}
	}
}
