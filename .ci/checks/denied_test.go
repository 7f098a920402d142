package checks

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/mod/modfile"
)

// modules are the folders with a go.mod: the product, the tools it is made with, and
// a server it is tested with.
var modules = []string{".", ".ci/tools", ".ci/lint", ".ci/checks", ".ci/servers/vault"}

func TestDeniedModules(t *testing.T) {
	denials, err := parseDenials(read(t, ".ci/denied-modules.txt"))
	if err != nil {
		t.Fatal(".ci/denied-modules.txt: ", err)
	}
	if len(denials) == 0 {
		t.Fatal(".ci/denied-modules.txt denies nothing")
	}
	for _, dir := range modules {
		for _, f := range Denied(readMod(t, dir), denials) {
			t.Errorf("%s: %s", filepath.Join(dir, "go.mod"), f)
		}
	}
}

func TestDenied(t *testing.T) {
	denials, err := parseDenials([]byte(`
# a comment
example.com/a <v1.2.3 the reason
example.com/b * another`))
	if err != nil {
		t.Fatal(err)
	}
	mod, err := modfile.Parse("go.mod", []byte(`module example.com/m
require (
	example.com/a v1.2.3-rc.1
	example.com/b v1.9.0 // indirect
	example.com/ab v0.1.0
)
replace example.com/c => example.com/d v1.0.0`), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"example.com/a v1.2.3-rc.1: the reason",
		"example.com/b v1.9.0: another",
		"example.com/c is replaced by example.com/d: no replacements",
	}
	if got := Denied(mod, denials); !slices.Equal(got, want) {
		t.Errorf("Denied = %q, want %q", got, want)
	}
	mod.Require[0].Mod.Version = "v1.2.3"
	if got := Denied(mod, denials); !slices.Equal(got, want[1:]) {
		t.Errorf("first good version: Denied = %q, want %q", got, want[1:])
	}
	for _, bad := range []string{"example.com/a", "example.com/a * ", "example.com/a v1.2.3 r", "example.com/a <1.2.3 r"} {
		if _, err := parseDenials([]byte(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readMod(t *testing.T, dir string) *modfile.File {
	t.Helper()
	name := filepath.Join(dir, "go.mod")
	mod, err := modfile.Parse(name, read(t, name), nil)
	if err != nil {
		t.Fatal(err)
	}
	return mod
}
