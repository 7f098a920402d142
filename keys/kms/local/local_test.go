package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/sallyport/sallyport/keys"
	"github.com/sallyport/sallyport/keys/kms/kmstest"
)

// sealers writes a secret of each kind and returns its sealer.
func sealers(t *testing.T) map[string]Sealer {
	return map[string]Sealer{
		"passphrase": PassphraseFile(write(t, "correct horse battery staple\n")),
		"credential": CredentialFile(write(t, string(random(MinCredential)))),
	}
}

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func create(t *testing.T, s Sealer) (path string, k *Key) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "kek")
	k, err := Create(path, s)
	if err != nil {
		t.Fatal(err)
	}
	return path, k
}

func TestConformance(t *testing.T) {
	for name, s := range sealers(t) {
		t.Run(name, func(t *testing.T) {
			_, k := create(t, s)
			kmstest.Run(t, k)
		})
	}
}

func TestOpenIsTheCreatedKey(t *testing.T) {
	for name, s := range sealers(t) {
		t.Run(name, func(t *testing.T) {
			path, created := create(t, s)
			wrapped, err := created.Wrap(t.Context(), []byte("keyset"), kmstest.Binding())
			if err != nil {
				t.Fatal(err)
			}
			opened, err := Open(path, s)
			if err != nil {
				t.Fatal(err)
			}
			got, err := opened.Unwrap(t.Context(), wrapped, kmstest.Binding())
			if err != nil || string(got) != "keyset" || opened.URI() != created.URI() {
				t.Errorf("%q, %v; URIs %s and %s", got, err, opened.URI(), created.URI())
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != keyFileMode {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_ = opened.master.Use(func(master []byte) error {
				if bytes.Contains(content, master) {
					t.Error("the key file shows the key")
				}
				return nil
			})
		})
	}
}

func TestCreateNeverReplaces(t *testing.T) {
	s := sealers(t)["credential"]
	path, _ := create(t, s)
	before, _ := os.ReadFile(path)
	if _, err := Create(path, s); !errors.Is(err, ErrKeyFileExists) {
		t.Errorf("Create over a file: %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the file changed")
	}
	if _, err := Create(filepath.Join(path, "below-a-file"), s); err == nil {
		t.Error("created below a file")
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, s := range sealers(t) {
		path, _ := create(t, s)
		for _, c := range []struct {
			what  string
			spoil func(path string) error
			want  error
		}{
			{"missing file", os.Remove, ErrNoKeyFile},
			{"readable for the group", chmod(0o640), ErrPermissions},
			{"readable for all", chmod(0o604), ErrPermissions},
			{"empty", resize(0), ErrFormat},
			{"cut short", resize(100), ErrFormat},
			{"one byte more", resize(-1), ErrFormat},
		} {
			t.Run(name+"/"+c.what, func(t *testing.T) {
				copied := filepath.Join(t.TempDir(), "copy")
				content, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(copied, content, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := c.spoil(copied); err != nil {
					t.Fatal(err)
				}
				if _, err = Open(copied, s); !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
			})
		}
	}
}

func chmod(mode fs.FileMode) func(string) error {
	return func(path string) error { return os.Chmod(path, mode) }
}

// resize cuts the file to n bytes, or lengthens it by one if n is negative.
func resize(n int64) func(string) error {
	return func(path string) error {
		if n >= 0 {
			return os.Truncate(path, n)
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		return os.Truncate(path, info.Size()+1)
	}
}

// TestTypedRefusals names the errors that an operator acts on.
func TestTypedRefusals(t *testing.T) {
	all := sealers(t)
	path, _ := create(t, all["passphrase"])
	loose := write(t, "correct horse battery staple\n")
	if err := os.Chmod(loose, 0o604); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		sealer Sealer
		want   error
	}{
		"wrong passphrase": {PassphraseFile(write(t, "incorrect horse battery\n")), ErrWrongSecret},
		"other kind":       {all["credential"], ErrSealer},
		"loose secret":     {PassphraseFile(loose), ErrPermissions},
		"no secret":        {PassphraseFile(path + "-none"), ErrSecretFile},
		"short":            {PassphraseFile(write(t, "short")), ErrSecretFile},
		"too long":         {PassphraseFile(write(t, string(make([]byte, maxSecret+1)))), ErrSecretFile},
	} {
		if _, err := Open(path, c.sealer); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", what, err, c.want)
		}
	}
}

// TestCreateRefusesWeakSecrets before there is a file.
func TestCreateRefusesWeakSecrets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	for what, s := range map[string]Sealer{
		"passphrase": PassphraseFile(write(t, "0123456789abcde\r\n")),
		"credential": CredentialFile(write(t, string(random(MinCredential-1)))),
		"none":       CredentialFile(path + "-none"),
	} {
		if _, err := Create(path, s); !errors.Is(err, ErrSecretFile) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was left: %v", err)
	}
}

// TestEveryByteOfTheFileMatters flips each byte; cost parameters are among them.
func TestEveryByteOfTheFileMatters(t *testing.T) {
	s := sealers(t)["credential"]
	path, _ := create(t, s)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range content {
		changed := bytes.Clone(content)
		changed[i] ^= 0x10
		if _, err := parseFile(changed, s); err == nil {
			t.Errorf("byte %d does not matter", i)
		}
	}
	if _, err := parseFile(content, s); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

func TestCostsAreBounded(t *testing.T) {
	s := passphraseFile{"unread"}
	for _, params := range [][]byte{
		nil, make([]byte, 9), {0, 0, 0, 1, 0xff, 0, 0, 0, 1}, {0xff, 0, 0, 0, 0, 1, 0, 0, 1}, {0, 0, 0, 1, 0, 0, 0, 1, 4},
	} {
		if _, err := s.derive(nil, params); !errors.Is(err, ErrFormat) {
			t.Errorf("%x: %v", params, err)
		}
	}
}

func TestAnotherKeyIsToldApart(t *testing.T) {
	s := sealers(t)["credential"]
	_, one := create(t, s)
	_, two := create(t, s)
	if one.URI() == two.URI() {
		t.Fatal("two keys share a URI")
	}
	wrapped, err := one.Wrap(t.Context(), []byte("keyset"), kmstest.Binding())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := two.Unwrap(t.Context(), wrapped, kmstest.Binding()); !errors.Is(err, keys.ErrKEKMismatch) {
		t.Errorf("got %v", err)
	}
}

func TestClosedKeyRefuses(t *testing.T) {
	_, k := create(t, sealers(t)["credential"])
	wrapped, err := k.Wrap(t.Context(), []byte("keyset"), kmstest.Binding())
	if err != nil {
		t.Fatal(err)
	}
	k.Close()
	if _, err := k.Unwrap(t.Context(), wrapped, kmstest.Binding()); !errors.Is(err, keys.ErrKEKRefused) || errors.Is(err, keys.ErrKEKMismatch) {
		t.Errorf("Unwrap: %v", err)
	}
	if _, err := k.Wrap(t.Context(), []byte("keyset"), kmstest.Binding()); !errors.Is(err, keys.ErrKEKRefused) {
		t.Errorf("Wrap: %v", err)
	}
}

func TestKeyDoesNotPrint(t *testing.T) {
	_, k := create(t, sealers(t)["credential"])
	_ = k.master.Use(func(master []byte) error {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
			if out := fmt.Sprintf(verb, k); bytes.Contains([]byte(out), master) || bytes.Contains([]byte(out), fmt.Appendf(nil, "%x", master)) {
				t.Errorf("%s prints the key", verb)
			}
		}
		return nil
	})
}

func FuzzUnwrap(f *testing.F) {
	path := filepath.Join(f.TempDir(), "credential")
	if err := os.WriteFile(path, random(MinCredential), 0o600); err != nil {
		f.Fatal(err)
	}
	k, err := Create(filepath.Join(f.TempDir(), "kek"), CredentialFile(path))
	if err != nil {
		f.Fatal(err)
	}
	wrapped, err := k.Wrap(context.Background(), []byte("keyset"), kmstest.Binding())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wrapped)
	f.Add(wrapped[:headerLen])
	f.Add([]byte{wrapFormat})
	f.Fuzz(func(t *testing.T, b []byte) {
		keyset, err := k.Unwrap(t.Context(), b, kmstest.Binding())
		if bytes.Equal(b, wrapped) != (err == nil) {
			t.Errorf("%x gives %q, %v", b, keyset, err)
		}
		if err != nil && !errors.Is(err, keys.ErrKEKMismatch) {
			t.Errorf("error %v", err)
		}
	})
}

func FuzzKeyFile(f *testing.F) {
	path := filepath.Join(f.TempDir(), "credential")
	if err := os.WriteFile(path, random(MinCredential), 0o600); err != nil {
		f.Fatal(err)
	}
	file := filepath.Join(f.TempDir(), "kek")
	if _, err := Create(file, CredentialFile(path)); err != nil {
		f.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Add(content[:fixedLen])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parseFile(b, CredentialFile(path)); bytes.Equal(b, content) != (err == nil) {
			t.Errorf("%x: %v", b, err)
		}
	})
}
