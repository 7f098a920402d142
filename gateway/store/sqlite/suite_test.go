package sqlite

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/policy"
	"github.com/sallyport/sallyport/gateway/store/storetest"
	"github.com/sallyport/sallyport/keys"
)

func TestShelf(t *testing.T) {
	storetest.Shelf(t, func(t *testing.T, dir string) keys.Shelf { return openOrCreate(t, dir) })
}

func TestRegister(t *testing.T) {
	storetest.Register(t, func(t *testing.T, dir string) authn.Register { return openOrCreate(t, dir) })
}

func TestArchive(t *testing.T) {
	storetest.Archive(t, func(t *testing.T, dir string) policy.Archive { return openOrCreate(t, dir) })
}

func openOrCreate(t testing.TB, dir string) *Store {
	t.Helper()
	path := filepath.Join(dir, "store.db")
	s, err := Open(t.Context(), path)
	if errors.Is(err, fs.ErrNotExist) {
		s, err = Create(t.Context(), path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// create makes an empty store, closed with the test.
func newStore(t testing.TB) (*Store, string) {
	t.Helper()
	dir := t.TempDir()
	s := openOrCreate(t, dir)
	t.Cleanup(func() { must(t, s.Close()) })
	return s, filepath.Join(dir, "store.db")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
