package archived_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/google/tink/go/aead"
	"github.com/google/tink/go/daead"
	"github.com/google/tink/go/insecurecleartextkeyset"
	"github.com/google/tink/go/keyset"
	"github.com/google/tink/go/mac"
	"github.com/google/tink/go/prf"
	tinkpb "github.com/google/tink/go/proto/tink_go_proto"
	"github.com/google/tink/go/tink"

	"github.com/sallyport/sallyport/crypto/testvectors/internal/tinkcompat"
)

const module = "github.com/google/tink/go"

var update = flag.Bool("update", false, "write new keysets and envelopes for the other module")

// TestExchange reads what each of the modules wrote.
func TestExchange(t *testing.T) {
	if *update {
		x, err := tinkcompat.Make(tinkModule{}, module)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.MarshalIndent(x, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("../testdata/archived.json", append(raw, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, writer := range []string{"archived", "maintained"} {
		raw, err := os.ReadFile("../testdata/" + writer + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var x tinkcompat.Exchange
		if err := json.Unmarshal(raw, &x); err != nil {
			t.Fatal(err)
		}
		if err := tinkcompat.Check(tinkModule{}, x); err != nil {
			t.Errorf("%s reads %s: %v", module, x.Module, err)
		}
	}
}

type tinkModule struct{}

func template(p tinkcompat.Purpose) *tinkpb.KeyTemplate {
	var tpl *tinkpb.KeyTemplate
	switch p {
	case tinkcompat.AEAD:
		tpl = prf.HKDFSHA256PRFKeyTemplate()
	case tinkcompat.Deterministic:
		tpl = daead.AESSIVKeyTemplate()
	case tinkcompat.MAC:
		tpl = mac.HMACSHA256Tag256KeyTemplate()
	}
	tpl.OutputPrefixType = tinkpb.OutputPrefixType_RAW
	return tpl
}

func cleartextJSON(h *keyset.Handle) (json.RawMessage, error) {
	var out bytes.Buffer
	err := insecurecleartextkeyset.Write(h, keyset.NewJSONWriter(&out))
	return out.Bytes(), err
}

func (tinkModule) Wrapping() (json.RawMessage, error) {
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, err
	}
	return cleartextJSON(h)
}

func wrapper(wrapping json.RawMessage) (tink.AEAD, error) {
	h, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(wrapping)))
	if err != nil {
		return nil, err
	}
	return aead.New(h)
}

func (tinkModule) Generate(p tinkcompat.Purpose, wrapping json.RawMessage) (k tinkcompat.Keyset, err error) {
	kek, err := wrapper(wrapping)
	if err != nil {
		return k, err
	}
	h, err := keyset.NewHandle(template(p))
	if err != nil {
		return k, err
	}
	if k.Cleartext, err = cleartextJSON(h); err != nil {
		return k, err
	}
	var out bytes.Buffer
	err = h.WriteWithAssociatedData(keyset.NewBinaryWriter(&out), kek, []byte(p))
	k.Encrypted = out.Bytes()
	return k, err
}

func (tinkModule) Read(p tinkcompat.Purpose, k tinkcompat.Keyset, wrapping json.RawMessage) (cleartext, encrypted any, err error) {
	kek, err := wrapper(wrapping)
	if err != nil {
		return nil, nil, err
	}
	h, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(k.Cleartext)))
	if err != nil {
		return nil, nil, err
	}
	if cleartext, err = primitive(p, h); err != nil {
		return nil, nil, err
	}
	h, err = keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(k.Encrypted)), kek, []byte(p))
	if err != nil {
		return nil, nil, err
	}
	encrypted, err = primitive(p, h)
	return cleartext, encrypted, err
}

func primitive(p tinkcompat.Purpose, h *keyset.Handle) (any, error) {
	switch p {
	case tinkcompat.AEAD:
		set, err := prf.NewPRFSet(h)
		if err != nil {
			return nil, err
		}
		return set.PRFs[set.PrimaryID], nil
	case tinkcompat.Deterministic:
		return daead.New(h)
	case tinkcompat.MAC:
		return mac.New(h)
	}
	return nil, fmt.Errorf("unknown purpose %q", p)
}
