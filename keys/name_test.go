package keys_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/crypto/envelope"
	"github.com/sallyport/sallyport/keys"
)

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"tenants/acme/keyrings/ring", "tenants/a/keyrings/keyrings/b", "tenants//keyrings/", "x", "tenants/a-/keyrings/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := keys.ParseName(s)
		if err != nil {
			if !errors.Is(err, keys.ErrName) || (n != keys.Name{}) || s != "" && strings.Contains(err.Error(), s) && len(s) > 20 {
				t.Errorf("%q: %v, %v", s, n, err)
			}
			return
		}
		if n.String() != s || !keys.ValidID(string(n.Tenant)) || !keys.ValidID(n.Keyring) {
			t.Errorf("%q parses as %v", s, n)
		}
		if tenant, err := keys.ParseTenant("tenants/" + string(n.Tenant)); err != nil || tenant != n.Tenant {
			t.Errorf("tenant %q: %v", tenant, err)
		}
	})
}

func TestValidID(t *testing.T) {
	for id, want := range map[string]bool{
		"a": true, "acme-2": true, strings.Repeat("a", 63): true,
		"": false, strings.Repeat("a", 64): false, "2a": false, "-a": false, "a-": false, "A": false, "a_b": false, "a/b": false, "é": false, "a\x00": false,
	} {
		if keys.ValidID(id) != want {
			t.Errorf("%q: want %t", id, want)
		}
	}
}

// TestBindingEncoding fixes the bytes that every opaque provider authenticates:
// a change makes stored keys unreadable.
func TestBindingEncoding(t *testing.T) {
	b := keys.Binding{Deployment: "d", Environment: "e", Tenant: "t", Keyring: envelope.KeyringID{15: 9}, Version: 258, Purpose: keys.PurposeMAC}
	want := "\x00\x00\x00\x00\x00\x00\x00\x1csallyport/v1/wrapped-version" +
		"\x00\x00\x00\x00\x00\x00\x00\x01d" + "\x00\x00\x00\x00\x00\x00\x00\x01e" + "\x00\x00\x00\x00\x00\x00\x00\x01t" +
		"\x00\x00\x00\x00\x00\x00\x00\x10" + strings.Repeat("\x00", 15) + "\x09" +
		"\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x01\x02" + "\x00\x00\x00\x00\x00\x00\x00\x01\x03"
	if got := b.Encode(); !bytes.Equal(got, []byte(want)) {
		t.Errorf("got %q", got)
	}
	for name, value := range map[string]string{
		"deployment": "d", "environment": "e", "tenant": "t", "version": "258", "purpose": "mac", "keyring": "00000000000000000000000000000009",
	} {
		if b.Pairs()[name] != value || len(b.Pairs()) != 6 {
			t.Errorf("%s: %q", name, b.Pairs()[name])
		}
	}
}
