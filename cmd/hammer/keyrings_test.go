//go:build measure

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/store/sqlite"
	"github.com/sallyport/sallyport/keys"
)

var (
	manyKeyrings = flag.Int("keyrings", 0, "TestManyKeyrings: how many")
	programs     = flag.String("bin", filepath.Join("..", "..", "bin"), "TestManyKeyrings: folder of the programs")
)

// TestManyKeyrings measures a gateway with few keyrings and with very many. An
// operator could not make a million in less than half an hour, because each takes a
// KMS call and the gateway limits those; here they go into the store directly.
//
//	go test -tags measure ./cmd/hammer -run TestManyKeyrings -keyrings 1000000 -timeout 30m -v
func TestManyKeyrings(t *testing.T) {
	if *manyKeyrings == 0 {
		t.Skip("-keyrings N is not given")
	}
	bin, err := filepath.Abs(*programs)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{
		bin: bin, dir: t.TempDir(), duration: 2 * time.Second, rounds: 3, callers: 32, keyring: demoKeyring,
		keyrings: *manyKeyrings, quick: true, fill: fillStore, hammer: filepath.Join(bin, "hammer"),
	}
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// fillStore copies the demo keyring, under other names and ids, into the store of a
// gateway that it stops. It works on a copy in memory, where a transaction for each
// keyring waits for no disk.
func fillStore(ctx context.Context, g *server, count int) (err error) {
	g.Stop()
	path := filepath.Join(filepath.Dir(g.CA), "store.db")
	memory, err := os.MkdirTemp("/dev/shm", "hammer-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(memory)) }()
	fast := filepath.Join(memory, "store.db")
	if err := copyFile(fast, path); err != nil {
		return err
	}
	store, err := sqlite.Open(ctx, fast)
	if err != nil {
		return err
	}
	name, err := keys.ParseName(demoKeyring)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	ring, err := store.Ring(ctx, name)
	for i := 0; i < count && err == nil; i++ {
		ring.Name.Keyring = fmt.Sprintf("many-%08d", i)
		_, _ = rand.Read(ring.ID[:]) // never fails
		err = store.CreateRing(ctx, ring)
	}
	if err := errors.Join(err, store.Close()); err != nil {
		return err
	}
	return copyFile(path, fast)
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
