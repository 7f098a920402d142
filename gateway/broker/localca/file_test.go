package localca_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/gateway/broker/localca"
	"github.com/sallyport/sallyport/keys"
	"github.com/sallyport/sallyport/keys/kms/kmstest"
	"github.com/sallyport/sallyport/keys/kms/local"
)

func TestOpenRefusesWhatIsNotItsAuthority(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		change func(*localca.Config)
		want   error
		says   string
	}{
		"no file":             {func(c *localca.Config) { c.File += "x" }, fs.ErrNotExist, "ca.pemx"},
		"a directory":         {func(c *localca.Config) { c.File = filepath.Dir(c.File) }, localca.ErrFormat, "regular"},
		"another deployment":  {func(c *localca.Config) { c.Deployment = "there" }, localca.ErrForeign, `"here"`},
		"another environment": {func(c *localca.Config) { c.Environment = "production" }, localca.ErrForeign, `"test"`},
		"no KEK":              {func(c *localca.Config) { c.KEKs = nil }, localca.ErrUnknownKEK, "fake:one"},
		"another KEK":         {func(c *localca.Config) { c.KEKs = c.KEKs[:1] }, localca.ErrUnknownKEK, "fake:one"},
		"another KEK of the same name": {
			func(c *localca.Config) { c.KEKs = []keys.KEK{kmstest.NewFake("one")} }, keys.ErrKEKMismatch, "unwrapping",
		},
	} {
		config := w.config()
		c.change(&config)
		s, err := localca.Open(t.Context(), config)
		if !errors.Is(err, c.want) || s != nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.kek.Plan(kmstest.Denied, kmstest.Unreachable, kmstest.Throttled)
	for _, want := range []error{keys.ErrKEKRefused, keys.ErrKEKUnreachable, keys.ErrKEKThrottled} {
		if _, err := localca.Open(t.Context(), w.config()); !errors.Is(err, want) {
			t.Errorf("the KEK fails with %v: %v", want, err)
		}
	}
	w.kek.Always(kmstest.Stalled)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := localca.Open(ctx, w.config()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a KEK that does not answer: %v", err)
	}
}

func TestOpenNoticesEveryAlteredByte(t *testing.T) {
	w := newWorld(t)
	content, err := os.ReadFile(w.path)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, altered []byte) {
		t.Helper()
		if err := os.WriteFile(w.path, altered, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := localca.Open(t.Context(), w.config())
		for _, known := range []error{localca.ErrFormat, localca.ErrForeign, localca.ErrUnknownKEK, keys.ErrKEKMismatch} {
			if errors.Is(err, known) {
				return
			}
		}
		t.Errorf("%s: %v", what, err)
	}
	for i := range content {
		altered := bytes.Clone(content)
		altered[i] ^= 1 << (i % 7)
		refused("byte "+strconv.Itoa(i), altered)
	}
	for n := 0; n < len(content); n += 7 {
		refused("cut to "+strconv.Itoa(n), content[:n])
	}
	refused("text before", append([]byte("# our authority\n"), content...))
	refused("text after", append(bytes.Clone(content), "# end\n"...))
	refused("twice", append(bytes.Clone(content), content...))
	refused("large", append(bytes.Clone(content), make([]byte, 1<<17)...))
}

// The parts of two authorities are each genuine. Exchanged they are not one.
func TestPartsOfTwoAuthoritiesDoNotMakeOne(t *testing.T) {
	one, two := newWorld(t), newWorld(t)
	blocks := func(w *world) (certificate, key *pem.Block) {
		content, err := os.ReadFile(w.path)
		if err != nil {
			t.Fatal(err)
		}
		certificate, rest := pem.Decode(content)
		key, _ = pem.Decode(rest)
		return certificate, key
	}
	certificate, key := blocks(one)
	_, otherKey := blocks(two)
	kek := two.kek
	try := func(what string, want error, certificate, key *pem.Block) {
		t.Helper()
		content := append(pem.EncodeToMemory(certificate), pem.EncodeToMemory(key)...)
		if err := os.WriteFile(one.path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		config := one.config()
		config.KEKs = []keys.KEK{kek}
		if _, err := localca.Open(t.Context(), config); !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	try("another authority's key", localca.ErrFormat, certificate, otherKey)
	key.Bytes = otherKey.Bytes
	try("another authority's key under this one's id", keys.ErrKEKMismatch, certificate, key)
	leaf := one.issue(t, one.order()).leaf
	try("a leaf's certificate", localca.ErrFormat, &pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw}, key)
}

// To change the binding makes every authority unreadable. A keyring of a tenant, whose
// id is a name's segment and whose purpose another one, is never bound alike.
func TestTheKeyIsBoundToItsAuthorityAndItsPurpose(t *testing.T) {
	w := newWorld(t)
	content, err := os.ReadFile(w.path)
	if err != nil {
		t.Fatal(err)
	}
	_, rest := pem.Decode(content)
	key, _ := pem.Decode(rest)
	b := keys.Binding{Deployment: "here", Environment: "test", Tenant: "_authority", Version: 1, Purpose: keys.PurposeSigning}
	if _, err := hex.Decode(b.Keyring[:], []byte(key.Headers["Authority"])); err != nil {
		t.Fatal(err)
	}
	if keys.ValidID(string(b.Tenant)) {
		t.Error("a tenant can have the authorities' name")
	}
	if _, err := w.kek.Unwrap(t.Context(), key.Bytes, b); err != nil {
		t.Errorf("not bound as documented: %v", err)
	}
	b.Purpose = keys.PurposeAEAD
	if _, err := w.kek.Unwrap(t.Context(), key.Bytes, b); !errors.Is(err, keys.ErrKEKMismatch) {
		t.Errorf("bound to no purpose: %v", err)
	}
}

func TestCreateReplacesNothing(t *testing.T) {
	w := newWorld(t)
	before, err := os.ReadFile(w.path)
	if err != nil {
		t.Fatal(err)
	}
	wraps := w.kek.Wraps()
	link := filepath.Join(t.TempDir(), "link.pem")
	if err := os.Symlink(filepath.Join(t.TempDir(), "nowhere"), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{w.path, link} {
		if err := localca.Create(t.Context(), path, w.kek, "here", "test", w.now); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	after, err := os.ReadFile(w.path)
	if err != nil || !bytes.Equal(before, after) || w.kek.Wraps() != wraps {
		t.Errorf("the file was replaced, or the KEK was asked in vain: %v", err)
	}
	info, err := os.Stat(w.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	only(t, w.path)
}

func TestOfManyCreatorsOneWins(t *testing.T) {
	kek, path := kmstest.NewFake("one"), filepath.Join(t.TempDir(), "ca.pem")
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = localca.Create(t.Context(), path, kek, "here", "test", time.Now()) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, fs.ErrExist) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d won", won)
	}
	only(t, path)
}

// only fails if there is anything beside path.
func only(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestCreateFailsWithoutLeavingAnything(t *testing.T) {
	dir := t.TempDir()
	kek := kmstest.NewFake("one")
	empty := func(what string) {
		t.Helper()
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("%s: left behind: %v, %v", what, entries, err)
		}
	}
	path := filepath.Join(dir, "ca.pem")
	kek.Plan(kmstest.Denied)
	if err := localca.Create(t.Context(), path, kek, "here", "test", time.Now()); !errors.Is(err, keys.ErrKEKRefused) {
		t.Errorf("the KEK refuses: %v", err)
	}
	empty("the KEK refuses")
	for _, deployment := range []string{"a\nKEK: b", " a", "a\r"} {
		if err := localca.Create(t.Context(), path, kek, deployment, "test", time.Now()); !errors.Is(err, localca.ErrFormat) {
			t.Errorf("%q: %v", deployment, err)
		}
		empty(deployment)
	}
	if err := localca.Create(t.Context(), filepath.Join(dir, "none", "ca.pem"), kek, "here", "test", time.Now()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

// The PEM that is written without buffers that grow is that of the standard library.
func TestPEMIsAsEverybodyWritesIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		der := rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "der")
		if got, want := localca.EncodePEM("PRIVATE KEY", der), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}); !bytes.Equal(got, want) {
			t.Fatalf("%s\nwant\n%s", got, want)
		}
	})
}

func TestACrashBeforeTheNameLeavesNoAuthority(t *testing.T) {
	w := newWorld(t)
	path, config := filepath.Join(t.TempDir(), "ca.pem"), w.config()
	config.KEKs, config.File = []keys.KEK{w.kek}, path
	if err := localca.Stage(t.Context(), path, config); err != nil {
		t.Fatal(err)
	}
	if _, err := localca.Open(t.Context(), config); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opened: %v", err)
	}
	if err := localca.Create(t.Context(), path, w.kek, "here", "test", w.now); err != nil {
		t.Fatal(err)
	}
	if _, err := localca.Open(t.Context(), config); err != nil {
		t.Error(err)
	}
}

const killVar = "SALLYPORT_TEST_LOCALCA_KILL"

// TestAKilledCreatorLeavesAWholeAuthorityOrNone kills processes that make one authority
// after another, at random moments, and opens all that they left.
func TestAKilledCreatorLeavesAWholeAuthorityOrNone(t *testing.T) {
	if dir := os.Getenv(killVar); dir != "" {
		kek := openKEK(t, dir)
		for i := 0; ; i++ {
			path := filepath.Join(dir, strconv.Itoa(os.Getpid())+"-"+strconv.Itoa(i)+".pem")
			if err := localca.Create(t.Context(), path, kek, "here", "test", time.Now()); err != nil {
				t.Fatal(err)
			}
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "credential"), bytes.Repeat([]byte{7}, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	kek, err := local.Create(filepath.Join(dir, "kek"), local.CredentialFile(filepath.Join(dir, "credential")))
	if err != nil {
		t.Fatal(err)
	}
	defer kek.Close()
	for range 12 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAKilledCreator")
		cmd.Env = append(os.Environ(), killVar+"="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(100*time.Millisecond+rand.N(100*time.Millisecond), func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		if cmd.ProcessState.Exited() {
			t.Fatalf("the creator ended by itself: %v", cmd.ProcessState)
		}
	}
	whole, err := filepath.Glob(filepath.Join(dir, "*.pem"))
	if err != nil || len(whole) < 12 {
		t.Fatalf("%d files: too little happened (%v)", len(whole), err)
	}
	for _, path := range whole {
		config := localca.Config{File: path, KEKs: []keys.KEK{kek}, Deployment: "here", Environment: "test", Now: time.Now}
		if _, err := localca.Open(t.Context(), config); err != nil {
			t.Errorf("%s: %v", filepath.Base(path), err)
		}
	}
	strays, _ := filepath.Glob(filepath.Join(dir, ".*.pem.*"))
	t.Logf("12 kills, %d whole files, %d strays", len(whole), len(strays))
}

func openKEK(t *testing.T, dir string) keys.KEK {
	t.Helper()
	kek, err := local.Open(filepath.Join(dir, "kek"), local.CredentialFile(filepath.Join(dir, "credential")))
	if err != nil {
		t.Fatal(err)
	}
	return kek
}
