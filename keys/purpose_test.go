package keys_test

import (
	"errors"
	"testing"

	"github.com/sallyport/sallyport/keys"
)

func TestASigningKeyIsNoKeyring(t *testing.T) {
	if keys.PurposeSigning.Valid() || keys.PurposeSigning.String() != "signing" {
		t.Errorf("purpose %v, valid %v", keys.PurposeSigning, keys.PurposeSigning.Valid())
	}
	w := newWorld(t, nil)
	_, err := w.CreateRing(t.Context(), keys.Name{Tenant: "acme", Keyring: "signing"}, keys.PurposeSigning, 0)
	if !errors.Is(err, keys.ErrArgument) {
		t.Errorf("a keyring of it is made: %v", err)
	}
}
