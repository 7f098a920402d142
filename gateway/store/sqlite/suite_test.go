package sqlite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/lease"
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

func TestLedger(t *testing.T) {
	storetest.Ledger(t, func(t *testing.T, dir string) lease.Ledger { return openOrCreate(t, dir) })
}

func TestRoles(t *testing.T) {
	storetest.Roles(t, func(t *testing.T, dir string) storetest.RoleStore { return openOrCreate(t, dir) })
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

// newStore makes an empty store, closed with the test.
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

func at(n int) time.Time { return time.Unix(2_000_000_000+int64(n), 0).UTC() }

// testRing gives a ring as it is in use: one version, wrapped by AWS KMS.
func testRing(tenant keys.Tenant, id string, n int) keys.Ring {
	r := keys.Ring{
		Name: keys.Name{Tenant: tenant, Keyring: id}, Purpose: keys.PurposeAEAD, Created: at(n),
		RotationPeriod: 90 * 24 * time.Hour, NextRotation: at(n),
		Versions: []keys.Version{{
			Number: 1, State: keys.StatePrimary, Created: at(n), Wrapped: bytes.Repeat([]byte{byte(n)}, 280),
			KEK: "awskms:arn:aws:kms:eu-central-1:123456789012:key/00000000-0000-0000-0000-000000000000",
		}},
	}
	binary.BigEndian.PutUint64(r.ID[8:], uint64(n))
	return r
}
