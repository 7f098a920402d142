package secret_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport/sallyport/crypto/secret"
)

// needle is what must never be found: printable, so that %s and %q would show
// it as it stands.
const needle = "HUNTER2-hunter2-needle!"

type outer struct {
	Exported   secret.Bytes
	unexported secret.Bytes
	pointer    *secret.Bytes
	nested     struct{ in []secret.Bytes }
	byName     map[string]secret.Bytes
	any        any
}

func holders() map[string]any {
	s := secret.Copy([]byte(needle))
	o := outer{Exported: s, unexported: s, pointer: &s, byName: map[string]secret.Bytes{"k": s}, any: s}
	o.nested.in = []secret.Bytes{s}
	hidden := struct{ unexported secret.Bytes }{s}
	return map[string]any{
		"value": s, "pointer": &s, "struct": o, "pointer to struct": &o,
		"slice": []secret.Bytes{s}, "array": [1]secret.Bytes{s}, "hidden": hidden,
		"hidden pointer": struct{ p *outer }{&o},
		"error":          fmt.Errorf("failed with %v in %+v", s, o),
	}
}

// leaks reports whether output holds the needle, or eight bytes of it, in any
// of the encodings that a printer could choose.
func leaks(output string) bool {
	squeezed := strings.NewReplacer(" ", "", "0x", "", "0X", "", ",", "", "\n", "").Replace(output)
	part := []byte(needle)[:8]
	decimal := strings.Trim(fmt.Sprint(part), "[]")
	for _, form := range []string{
		string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)),
		base64.RawStdEncoding.EncodeToString(part[:6]), strings.ReplaceAll(decimal, " ", ""),
	} {
		if strings.Contains(output, form) || strings.Contains(squeezed, form) {
			return true
		}
	}
	return strings.Contains(output, decimal)
}

func TestLeaksFindsEveryForm(t *testing.T) {
	for _, verb := range []string{"%s", "%q", "%v", "%x", "%X", "% x", "%#x", "%d"} {
		if out := fmt.Sprintf(verb, []byte(needle)); !leaks(out) {
			t.Errorf("the search is blind to %s: %s", verb, out)
		}
	}
}

func TestNoVerbPrints(t *testing.T) {
	for name, v := range holders() {
		for verb := 'A'; verb <= 'z'; verb++ {
			for _, flags := range []string{"", "+", "#", "-", " ", "0", "30", ".5", "#+"} {
				if out := fmt.Sprintf("%"+flags+string(verb), v); leaks(out) {
					t.Fatalf("%s leaks through %%%s%c: %.120s", name, flags, verb, out)
				}
			}
		}
		if out := fmt.Sprintln(v); leaks(out) {
			t.Errorf("%s leaks through Println: %s", name, out)
		}
	}
}

func TestNoEncoderWrites(t *testing.T) {
	for name, v := range holders() {
		var out bytes.Buffer
		enc, err := json.Marshal(v)
		out.Write(enc)
		fmt.Fprint(&out, err)
		fmt.Fprint(&out, xml.NewEncoder(&out).Encode(v))
		fmt.Fprint(&out, gob.NewEncoder(&out).Encode(v))
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		if leaks(out.String()) {
			t.Errorf("%s leaks through an encoder: %s", name, out.String())
		}
	}
	s := secret.Copy([]byte(needle))
	if _, err := json.Marshal(s); !errors.Is(err, secret.ErrNotMarshalable) {
		t.Errorf("json: %v", err)
	}
	if _, err := s.MarshalText(); !errors.Is(err, secret.ErrNotMarshalable) {
		t.Errorf("text: %v", err)
	}
	if _, err := s.MarshalBinary(); !errors.Is(err, secret.ErrNotMarshalable) {
		t.Errorf("binary: %v", err)
	}
}

func TestPanicDoesNotPrint(t *testing.T) {
	defer func() {
		if out := fmt.Sprint(recover()); leaks(out) {
			t.Error("a panic value leaks: " + out)
		}
	}()
	panic(holders()["struct"])
}

func TestUseAndWipe(t *testing.T) {
	raw := []byte(needle)
	s := secret.Take(raw)
	alias := s
	if err := s.Use(func(b []byte) error {
		if string(b) != needle || cap(b) != len(b) {
			t.Errorf("Use shows %q with capacity %d", b, cap(b))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	own := errors.New("of the callback")
	if err := s.Use(func([]byte) error { return own }); !errors.Is(err, own) {
		t.Errorf("Use returns %v", err)
	}
	s.Wipe()
	s.Wipe()
	if !bytes.Equal(raw, make([]byte, len(raw))) {
		t.Errorf("after Wipe the memory holds %q", raw)
	}
	for name, gone := range map[string]secret.Bytes{"wiped": s, "alias": alias, "zero": {}} {
		err := gone.Use(func([]byte) error { t.Errorf("%s: callback ran", name); return nil })
		if !errors.Is(err, secret.ErrWiped) || !gone.Wiped() {
			t.Errorf("%s: %v, Wiped %t", name, err, gone.Wiped())
		}
	}
	(secret.Bytes{}).Wipe()
}

func TestEqual(t *testing.T) {
	a, b, c := secret.Copy([]byte(needle)), secret.Copy([]byte(needle)), secret.Random(len(needle))
	if !a.Equal(b) || !a.Equal(a) || a.Equal(c) || a.Equal(secret.Copy([]byte(needle[1:]))) {
		t.Error("Equal is wrong")
	}
	b.Wipe()
	if a.Equal(b) || b.Equal(a) || b.Equal(b) || b.Equal(secret.Bytes{}) {
		t.Error("a wiped secret equals something")
	}
}

// TestWipeWaits proves that no callback sees bytes being cleared under it.
func TestWipeWaits(t *testing.T) {
	for range 200 {
		s := secret.Copy(bytes.Repeat([]byte{0xAA}, 64))
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				_ = s.Use(func(b []byte) error {
					for _, x := range b {
						if x != 0xAA {
							t.Error("a callback saw a wiped byte")
						}
					}
					return nil
				})
			})
		}
		group.Go(s.Wipe)
		group.Wait()
	}
}
