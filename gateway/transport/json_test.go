package transport

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/gateway/fault"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
)

// bodies are JSON texts, and whether the short way reads them by itself.
var bodies = map[string]bool{
	`{"plaintext":"eA=="}`: true,
	`{"ciphertext":"eA==","context":{"record":"17","b":""}}`:       true,
	" {\n\t\"context\" : {\"a\":\"b\"}\r, \"plaintext\" : \"\" } ": true,
	`{"context":{"a":"b"}}`: true,
	`{"context":{}}`:        true,

	`{}`:                          false, // the long way accepts what follows ...
	`{"plaintext":"eA"}`:          false,
	`{"plaintext":"_-8="}`:        false,
	`{"plaintext":"\u0065A=="}`:   false,
	`{"context":{"é":"é"}}`:       false,
	`{"format":"FORMAT_COMPACT"}`: false,
	`{"plaintext":null}`:          false,
	``:                            false, // ... and refuses the rest
	`{"plaintext":"eA==","plaintext":"eA=="}`:   false,
	`{"context":{"a":"b"},"context":{"c":"d"}}`: false,
	`{"context":{"a":"b","a":"c"}}`:             false,
	`{"plaintext":"eA=="}x`:                     false,
	`{"plaintext":"eA==",}`:                     false,
	`{"plaintext":"eA=="`:                       false,
	`{"plaintext":"e"}`:                         false,
	`{"Plaintext":"eA=="}`:                      false,
	`{"context":{"a":1}}`:                       false,
	"{\"context\":{\"a\":\"\x01\"}}":            false,
	"{\"context\":{\"a\":\"\xff\"}}":            false,
	"{\"plaintext\":\"eA\n==\"}":                false,
}

func TestParseRequestShortcut(t *testing.T) {
	for body, want := range bodies {
		short := parseRequest([]byte(body), new(datav1.EncryptRequest)) || parseRequest([]byte(body), new(datav1.DecryptRequest))
		if short != want {
			t.Errorf("%s: %v", body, short)
		}
		compareParsers(t, []byte(body))
	}
}

// Whatever the short way accepts, protojson accepts and understands alike.
func FuzzParseRequest(f *testing.F) {
	for body := range bodies {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) { compareParsers(t, body) })
}

func compareParsers(t *testing.T, body []byte) {
	t.Helper()
	for _, m := range []proto.Message{new(datav1.EncryptRequest), new(datav1.DecryptRequest)} {
		short, long := m, m.ProtoReflect().New().Interface()
		if !parseRequest(body, short) {
			continue
		}
		if err := protojson.Unmarshal(body, long); err != nil || !proto.Equal(short, long) {
			t.Errorf("%q: read as %v; protojson reads %v, %v", body, short, long, err)
		}
	}
}

// The short way of writing writes what protojson reads as the same message, and
// nothing but one line of JSON.
func FuzzAppendReply(f *testing.F) {
	f.Add([]byte(nil), uint32(0))
	f.Add([]byte("attack at dawn"), uint32(math.MaxUint32))
	f.Fuzz(func(t *testing.T, value []byte, version uint32) {
		for _, m := range []proto.Message{
			&datav1.EncryptResponse{Ciphertext: value, Version: version}, &datav1.DecryptResponse{Plaintext: value, Version: version},
		} {
			out, ok := appendReply(nil, m)
			back := m.ProtoReflect().New().Interface()
			if err := protojson.Unmarshal(out, back); !ok || err != nil || !proto.Equal(m, back) {
				t.Errorf("%v is written as %q, read as %v, %v", m, out, back, err)
			}
		}
	})
}

// Fields at their defaults are written: a client sees every field of a reply.
func TestRepliesAreWhole(t *testing.T) {
	for want, m := range map[string]proto.Message{
		`{"plaintext":"","version":0}`: &datav1.DecryptResponse{},
		`{"valid":false, "version":0}`: &datav1.VerifyMacResponse{},
	} {
		got, err := (&jsonMarshaler{}).Marshal(m)
		var a, b any
		if err != nil || json.Unmarshal(got, &a) != nil || json.Unmarshal([]byte(want), &b) != nil || !reflect.DeepEqual(a, b) {
			t.Errorf("got %s, want %s (%v)", got, want, err)
		}
	}
	if _, err := (&jsonMarshaler{}).Marshal("not a message"); err == nil {
		t.Error("something else than a message was written")
	}
}

// entry is an entry of a context on the wire.
func entry(name, value string) []byte {
	e := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), name)
	e = protowire.AppendString(protowire.AppendTag(e, 2, protowire.BytesType), value)
	return protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), e)
}

// The codec takes the one encoding of a message that protobuf libraries write, in
// whatever order of fields, and no other bytes.
func TestStrictCodec(t *testing.T) {
	name := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "n")
	format := []byte{0x20, 1}
	join := func(parts ...[]byte) (out []byte) {
		for _, p := range parts {
			out = append(out, p...)
		}
		return out
	}
	for what, test := range map[string]struct {
		wire []byte
		want fault.Reason
	}{
		"nothing":                  {nil, 0},
		"fields in order":          {join(name, entry("a", "b"), entry("c", "d"), format), 0},
		"fields in another order":  {join(format, entry("c", "d"), entry("a", "b"), name), 0},
		"scalar twice":             {join(name, name), fault.MalformedRequest},
		"map key twice":            {join(entry("a", "b"), entry("a", "b")), fault.MalformedRequest},
		"map key twice, otherwise": {join(entry("a", "b"), entry("a", "c")), fault.MalformedRequest},
		"unknown field":            {join(name, []byte{0x28, 1}), fault.MalformedRequest},
		"unknown field in a map":   {join(name, []byte{0x1a, 2, 0x18, 1}), fault.MalformedRequest},
		"default that is written":  {join(name, []byte{0x20, 0}), fault.MalformedRequest},
		"long varint":              {[]byte{0x20, 0x81, 0x00}, fault.MalformedRequest},
		"long length":              {[]byte{0x0a, 0x81, 0x00, 'n'}, fault.MalformedRequest},
		"wrong wire type":          {[]byte{0x08, 1}, fault.MalformedRequest},
		"group":                    {[]byte{0x0b, 0x0c}, fault.MalformedRequest},
		"truncated":                {name[:len(name)-1], fault.MalformedRequest},
		"not UTF-8":                {[]byte{0x0a, 1, 0xff}, fault.MalformedRequest},
		"too large":                {join([]byte{0x12, 100}, make([]byte, 100)), fault.RequestTooLarge},
	} {
		in := incoming{message: new(datav1.EncryptRequest), limit: 100}
		_ = newCodec(mem.DefaultBufferPool()).Unmarshal(mem.BufferSlice{mem.SliceBuffer(test.wire)}, &in)
		switch {
		case test.want == 0 && in.fault != nil:
			t.Errorf("%s: refused: %v", what, in.fault)
		case test.want != 0 && (in.fault == nil || in.fault.Reason != test.want):
			t.Errorf("%s: %v, want %v", what, in.fault, test.want)
		}
	}
}

// A reply's plaintext is gone from the message once it is on its way, and buffers
// are cleared before they are used again.
func TestPlaintextIsWiped(t *testing.T) {
	reply := &datav1.DecryptResponse{Plaintext: []byte("attack at dawn"), Version: 1}
	plaintext := reply.GetPlaintext()
	want, err := proto.Marshal(reply)
	if err != nil {
		t.Fatal(err)
	}
	pool := wipingPool{noPool{}}
	out, err := newCodec(pool).Marshal(outgoing{reply})
	if err != nil || string(out.Materialize()) != string(want) {
		t.Fatalf("%x, %v", out.Materialize(), err)
	}
	if string(plaintext) != string(make([]byte, len(plaintext))) {
		t.Errorf("the message still holds %q", plaintext)
	}
	used := []byte("attack at dawn")
	pool.Put(&used)
	if string(used) != string(make([]byte, len(used))) {
		t.Errorf("the buffer still holds %q", used)
	}
}

// noPool makes every buffer anew.
type noPool struct{}

func (noPool) Get(n int) *[]byte { b := make([]byte, n); return &b }
func (noPool) Put(*[]byte)       {}
