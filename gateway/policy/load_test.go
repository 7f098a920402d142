package policy

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
)

func TestLoadDir(t *testing.T) {
	dir := fstest.MapFS{
		"b.cedar": {Data: []byte(permitAll)}, "a.cedar": {Data: []byte("// nothing")}, "README.md": {}, "cases.yaml": {},
		".git/config": {},
	}
	files, err := LoadDir(dir)
	if err != nil || len(files) != 2 || files[0].Name != "a.cedar" || files[1].Content != permitAll {
		t.Fatalf("%v, %v", files, err)
	}
	for _, name := range []string{"c.ceder", "c.json", "sub/c.cedar", "c.cedar~", "c"} {
		dir := fstest.MapFS{"a.cedar": {}, name: {}}
		if _, err := LoadDir(dir); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := LoadDir(fstest.MapFS{"a.cedar": {Mode: fs.ModeNamedPipe}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a pipe: %v", err)
	}
}

// A mounted ConfigMap is a directory of links into a hidden one.
func TestLoadDirFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "..data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "..data", "a.cedar"), []byte(permitAll), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join("..data", "a.cedar"), filepath.Join(dir, "a.cedar")); err != nil {
		t.Fatal(err)
	}
	files, err := LoadDir(os.DirFS(dir))
	if err != nil || len(files) != 1 || files[0].Content != permitAll {
		t.Errorf("%v, %v", files, err)
	}
	if err := os.Symlink("nothing", filepath.Join(dir, "b.cedar")); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadDir(os.DirFS(dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link to nothing: %v", err)
	}
}

func TestSummaries(t *testing.T) {
	s := mustCompile(t, `// A comment.

@id("one")
permit (principal == Sallyport::Workload::"spiffe://example.org/payments",
  action in [Sallyport::Action::"plaintext", Sallyport::Action::"encrypt"],
  resource in Sallyport::Tenant::"tenants/acme")
when { context.time > 1 } unless { context.time > 2 };
@id("two") forbid (principal is Sallyport::Operator, action == Sallyport::Action::"getKeyring", resource is
  Sallyport::Keyring in Sallyport::Tenant::"tenants/acme");
`)
	want := []Summary{
		{
			"test/one", "test.cedar", 3, "permit", "Workload spiffe://example.org/payments", "plaintext, encrypt",
			"in Tenant tenants/acme", 2,
		},
		{"test/two", "test.cedar", 8, "forbid", "any Operator", "getKeyring", "any Keyring in Tenant tenants/acme", 0},
	}
	got := s.Policies()
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got  %+v\nwant %+v", got[i], want[i])
		}
	}
}
