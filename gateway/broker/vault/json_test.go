package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/crypto/secret"
)

func TestJSONThatIsRefused(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing": "", "space": " \n", "no object": `[]`, "a text": `"a"`, "two values": `{}{}`, "a tail": `{} x`,
		"no end": `{"a":1`, "no value": `{"a":}`, "no name": `{:1}`, "a name that is no text": `{1:2}`,
		"a comma at the end": `{"a":1,}`, "a comma at the end of an array": `{"a":[1,]}`, "no comma": `{"a":1 "b":2}`,
		"a name twice": `{"a":1,"a":2}`, "a name twice in other words": `{"a":1,"\u0061":2}`,
		"a name twice deeper": `{"x":[{"a":1,"a":2}]}`, "an open text": `{"a":"b}`, "an escaped end": `{"a":"b\"}`,
		"a control character": "{\"a\":\"\x01\"}", "a line break in a text": "{\"a\":\"\n\"}", "bad UTF-8": "{\"a\":\"\xff\"}",
		"half a pair": `{"a":"\ud800"}`, "half a pair and more": `{"a":"\ud800x"}`, "two first halves": `{"a":"\ud800\ud800"}`,
		"the second half": `{"a":"\udc00"}`, "an unknown escape": `{"a":"\x"}`, "short hexadecimal": `{"a":"\u12"}`,
		"bad hexadecimal": `{"a":"\u12g4"}`, "a leading zero": `{"a":01}`, "a plus": `{"a":+1}`, "a lone minus": `{"a":-}`,
		"no fraction": `{"a":1.}`, "no exponent": `{"a":1e}`, "infinity": `{"a":Infinity}`, "a half word": `{"a":tru}`,
		"a word with a tail": `{"a":truex}`, "a comment": `{/**/}`, "too deep": `{"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`,
		"a byte order mark": "\ufeff{}", "a NUL": "{}\x00",
	} {
		if _, err := parse([]byte(text)); !errors.Is(err, errJSON) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestElementsOfAnotherTypeAreRefused(t *testing.T) {
	t.Parallel()
	o, err := parse([]byte(`{"text":"t","number":5,"below":-1,"part":1.5,"large":9223372036854775808,"yes":true,"null":null,"object":{},"array":[1]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range o.names() {
		e := o[name]
		_, asText := e.text()
		_, asName := e.name()
		_, asNumber := e.number()
		_, asFlag := e.flag()
		_, asObject := e.object()
		_, asArray := e.elements()
		empty := name == "null"
		for what, got := range map[string]bool{
			"text":   (asText == nil) == (name == "text"),
			"name":   (asName == nil) == (name == "text" || empty),
			"number": (asNumber == nil) == (name == "number" || empty),
			"flag":   (asFlag == nil) == (name == "yes" || empty),
			"object": (asObject == nil) == (name == "object"),
			"array":  (asArray == nil) == (name == "array" || empty),
		} {
			if !got {
				t.Errorf("%s as %s", name, what)
			}
		}
	}
	if _, err := o["absent"].object(); err == nil {
		t.Error("what is absent is an object")
	}
}

// agree checks that what the reader accepts means what encoding/json says.
func agree(t interface{ Fatalf(string, ...any) }, text []byte) {
	kept := bytes.Clone(text)
	o, err := parse(text)
	if !bytes.Equal(kept, text) {
		t.Fatalf("the reader changed the text")
	}
	if err != nil {
		return
	}
	var want map[string]json.RawMessage
	if err := json.Unmarshal(text, &want); err != nil || len(want) != len(o) {
		t.Fatalf("%q: %d members, want %d: %v", text, len(o), len(want), err)
	}
	for name, raw := range want {
		e, ok := o[name]
		if !ok || !bytes.Equal(bytes.TrimSpace(raw), e) {
			t.Fatalf("%q: member %q is %q, want %q", text, name, e, raw)
		}
		sameValue(t, e, raw)
	}
}

func sameValue(t interface{ Fatalf(string, ...any) }, e element, raw []byte) {
	decode := json.NewDecoder(bytes.NewReader(raw))
	decode.UseNumber()
	var v any
	if err := decode.Decode(&v); err != nil {
		t.Fatalf("%q: %v", raw, err)
	}
	switch v := v.(type) {
	case string:
		got, err := e.text()
		if err != nil || !got.Equal(secret.Copy([]byte(v))) || !utf8.ValidString(v) {
			t.Fatalf("%q is not the text of %q: %v", raw, e, err)
		}
	case json.Number:
		n, err := e.number()
		if whole, ok := new(big.Int).SetString(v.String(), 10); err == nil && (!ok || whole.Cmp(big.NewInt(n)) != 0) {
			t.Fatalf("%q is not %d", raw, n)
		}
	case bool:
		if got, err := e.flag(); err != nil || got != v {
			t.Fatalf("%q is not the truth of %q", raw, e)
		}
	case []any:
		if all, err := e.elements(); err != nil || len(all) != len(v) {
			t.Fatalf("%q has not the elements of %q: %v", raw, e, err)
		}
	case map[string]any:
		agree(t, e)
	}
}

func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		`{"a":"b","c":[1,2.5e-3,{"d":null}],"e":{"f":true,"g":false}}`, `{"\u00e4\ud83d\ude00":"\"\\\/\b\f\n\r\t"}`,
		`{"lease_id":"database/creds/app/x","lease_duration":60,"renewable":true,"data":{"password":"p"}}`, ` { } `,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) { agree(t, text) })
}

func TestWhatEncodingJSONWritesIsRead(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.MapOf(rapid.String(), rapid.OneOf(
			rapid.String().AsAny(), rapid.Bool().AsAny(), rapid.Int64().AsAny(), rapid.SliceOf(rapid.String()).AsAny(),
			rapid.MapOf(rapid.String(), rapid.Float64().AsAny()).AsAny(),
		)).Draw(t, "members")
		text, err := json.Marshal(want)
		if err != nil {
			t.Skip()
		}
		o, err := parse(text)
		if err != nil || len(o) != len(want) {
			t.Fatalf("%s: %v", text, err)
		}
		agree(t, text)
	})
}

func TestSecretsAreQuotedForBodies(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.String().Draw(t, "value")
		b, err := secretFields(map[string]any{"role": "x"}, "jwt", secret.Copy([]byte(value)))
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]string
		if err := json.Unmarshal(b.b, &got); err != nil || got["jwt"] != value || got["role"] != "x" {
			t.Fatalf("%s: %v", b.b, err)
		}
		b.wipe()
		if n, _ := b.reader().Read(make([]byte, 9)); n != 0 {
			t.Fatal("a wiped body is read")
		}
	})
}
