package checks

import (
	"slices"
	"testing"

	"golang.org/x/mod/modfile"
)

func TestDependenciesAreKnown(t *testing.T) {
	g, err := load()
	if err != nil {
		t.Fatal(err)
	}
	written, err := Dependencies(read(t, "docs/dependencies.md"))
	if err != nil {
		t.Fatal("docs/dependencies.md: ", err)
	}
	product, protoTools, linter := readMod(t, "."), readMod(t, ".ci/tools"), readMod(t, ".ci/lint")
	programs, testsOnly := Direct(g, product)
	for _, f := range slices.Concat(
		Compare("In the programs", programs, written["In the programs"]),
		Compare("In tests only", testsOnly, written["In tests only"]),
		Compare("Tools", slices.Concat(Tools(protoTools), Tools(linter)), written["Tools"]),
	) {
		t.Error("docs/dependencies.md: ", f)
	}
}

func TestDependencies(t *testing.T) {
	g := graph(
		"keys -> example.com/a/sub fmt",
		"keys test> example.com/b",
		"keys/kms/kmstest -> example.com/c",
	)
	g["example.com/a/sub"].Module = "example.com/a"
	g["example.com/b"].Module = "example.com/b"
	g["example.com/c"].Module = "example.com/c"
	mod, err := modfile.Parse("go.mod", []byte(`module example.com/m
tool example.com/t/cmd/x
require (
	example.com/b v1.0.0
	example.com/tagged v1.0.0
	example.com/far v1.0.0 // indirect
	example.com/t v1.0.0 // indirect
	example.com/t/cmd v1.0.0 // indirect
)`), nil)
	if err != nil {
		t.Fatal(err)
	}
	programs, testsOnly := Direct(g, mod)
	if want := []string{"example.com/a", "example.com/tagged"}; !slices.Equal(programs, want) {
		t.Errorf("programs = %q, want %q", programs, want)
	}
	if want := []string{"example.com/b", "example.com/c"}; !slices.Equal(testsOnly, want) {
		t.Errorf("tests only = %q, want %q", testsOnly, want)
	}
	if got, want := Tools(mod), []string{"example.com/t/cmd"}; !slices.Equal(got, want) {
		t.Errorf("tools = %q, want %q", got, want)
	}

	written, err := Dependencies([]byte("## In the programs\n| module | why |\n|---|---|\n| `example.com/a` | because |\n| `example.com/z` | once |\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := Compare("In the programs", programs, written["In the programs"])
	if len(got) != 2 {
		t.Errorf("found %q, want one unlisted and one unused", got)
	}
	if _, err := Dependencies([]byte("| `example.com/a` |  |")); err == nil {
		t.Error("a row without a reason is accepted")
	}
}
