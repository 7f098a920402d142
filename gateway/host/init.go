package host

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/tlog"
	"github.com/sallyport/sallyport/gateway/broker/localca"
	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/gateway/policy"
	"github.com/sallyport/sallyport/gateway/store/sqlite"
	"github.com/sallyport/sallyport/keys/kms/local"
)

// Init makes what a gateway starts from: the store with its first policy, the
// local KEKs, the audit log and its keys. It makes no certificates. What is there
// already is left as it is and is an error, unless the whole is complete up to a
// point, as after a crash: then the rest is made.
func Init(ctx context.Context, c config.Config, files []policy.File) error {
	if _, err := policy.Compile(files); err != nil {
		return err
	}
	if _, err := os.Stat(c.Store.SQLite); err == nil {
		return fmt.Errorf("store.sqlite: %s: %w", c.Store.SQLite, fs.ErrExist)
	}
	for _, path := range []string{c.Store.SQLite, c.Audit.Directory, c.Audit.Key, c.Audit.PseudonymKey} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
	}
	for _, k := range c.KEK.Local {
		if err := initLocal(k); err != nil {
			return err
		}
	}
	if err := InitAuthorities(ctx, c); err != nil {
		return err
	}
	if err := initAudit(c.Audit); err != nil {
		return err
	}
	// The store comes last: without it the gateway does not start, so that a crash
	// before leaves something that Init completes.
	return initStore(ctx, c.Store.SQLite, files)
}

func initLocal(k config.LocalKEK) error {
	if err := os.MkdirAll(filepath.Dir(k.File), 0o700); err != nil {
		return err
	}
	key, err := local.Create(k.File, sealer(k))
	if errors.Is(err, fs.ErrExist) {
		key, err = local.Open(k.File, sealer(k))
	}
	if err != nil {
		return fmt.Errorf("kek.local %s: %w", k.Name, err)
	}
	key.Close()
	return nil
}

// InitAuthorities makes the gateway's own certificate authorities that the
// configuration names and that are not there, wrapped by the current KEK. It needs the
// KEK, and nothing else of what Init makes.
func InitAuthorities(ctx context.Context, c config.Config) (err error) {
	if len(c.Sources.LocalCA) == 0 {
		return nil
	}
	keks, closeAll, err := openKEKs(c)
	defer func() { err = errors.Join(err, closeAll()) }()
	if err != nil {
		return err
	}
	for _, l := range c.Sources.LocalCA {
		if err := os.MkdirAll(filepath.Dir(l.File), 0o700); err != nil {
			return err
		}
		err := localca.Create(ctx, l.File, keks[c.KEK.Current], c.Deployment, c.Environment, time.Now())
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("sources.local_ca %s: %w", l.Name, err)
		}
	}
	return nil
}

func initAudit(a config.Audit) error {
	key, err := audit.GenerateKey(a.Origin)
	if err != nil {
		return err
	}
	switch err := writeSecret(a.Key, key.Reveal()); {
	case errors.Is(err, fs.ErrExist):
		text, err := os.ReadFile(a.Key)
		if err != nil {
			return err
		}
		if key, err = audit.ParsePrivateKey(text); err != nil {
			return fmt.Errorf("audit.key: %w", err)
		}
	case err != nil:
		return err
	}
	public := key.Public()
	if err := os.WriteFile(PublicKeyPath(a), []byte(public.String()+"\n"), 0o644); err != nil { //nolint:gosec // a public key
		return err
	}
	pseudonyms := make([]byte, 32)
	_, _ = rand.Read(pseudonyms) // never fails (crypto/rand)
	if err := writeSecret(a.PseudonymKey, pseudonyms); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := tlog.Create(a.Directory, key); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("audit.directory: %w", err)
	}
	return nil
}

// PublicKeyPath is where Init writes the audit log's public key.
func PublicKeyPath(a config.Audit) string { return a.Key + ".pub" }

func initStore(ctx context.Context, path string, files []policy.File) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	s, err := sqlite.Create(ctx, path)
	if err != nil {
		return fmt.Errorf("store.sqlite: %w", err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if len(files) > 0 {
		_, err = s.ReplaceBundle(ctx, policy.Bundle{Files: files, Loaded: time.Now().UTC()})
	}
	return err
}

// writeSecret makes a file that only its owner reads, durably. It never replaces
// one.
func writeSecret(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return dir.Sync()
}
