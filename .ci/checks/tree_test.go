package checks

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// topLevel is all that may lie at the top of the repository.
var topLevel = []string{
	"cmd", "gateway", "crypto", "keys", "proto", "clients", "deploy", "docs",
	"go.mod", "go.sum", "Makefile", "README.md", "LICENSE", "CONTRIBUTING.md", "SECURITY.md",
	"buf.yaml", "buf.gen.yaml", ".golangci.yml", ".gitignore", ".github", ".ci",
}

func TestTopLevel(t *testing.T) {
	for _, name := range tracked(t) {
		if first, _, _ := strings.Cut(name, "/"); !slices.Contains(topLevel, first) {
			t.Errorf("%s: %s does not belong at the top of the repository", name, first)
		}
	}
}

// TestNothingOfThisMachine looks for what would tie the tree to the machine or the
// network of whoever wrote it.
func TestNothingOfThisMachine(t *testing.T) {
	for _, name := range tracked(t) {
		content := read(t, name)
		if bytes.IndexByte(content[:min(len(content), 8000)], 0) >= 0 {
			continue // binary
		}
		for n, line := range bytes.Split(content, []byte("\n")) {
			for _, f := range ofThisMachine(string(line)) {
				t.Errorf("%s:%d: %s", name, n+1, f)
			}
		}
	}
}

func TestOfThisMachine(t *testing.T) {
	slash := func(parts ...string) string { return "/" + strings.Join(parts, "/") }
	dot := func(parts ...string) string { return strings.Join(parts, ".") }
	for _, bad := range []string{
		"cd " + slash("home", "ada", "sallyport"), `"` + slash("root", ".cache") + `"`, "path=" + slash("work", "main"),
		"(" + slash("Users", "ada", "src") + ")",
		"index-url = https://" + dot("pypi", "org") + "/simple", "GOPROXY=https://" + dot("proxy", "golang", "org"),
		`"resolved": "https://` + dot("registry", "npmjs", "org") + `/x"`, "deb http://" + dot("deb", "debian", "org") + " bookworm",
	} {
		if len(ofThisMachine(bad)) != 1 {
			t.Errorf("%q is not found", bad)
		}
	}
	for _, good := range []string{
		"in the network/root/path", "the work" + slash("main", "x"), "golang.org/x/mod v0.42.0", "cmd/root.go", slash("var", "lib", "sallyport"),
		"https://example.com" + slash("work", "main"),
	} {
		if f := ofThisMachine(good); len(f) != 0 {
			t.Errorf("%q: %s", good, f)
		}
	}
}

// A folder of somebody's machine, at the beginning of a word.
var machinePath = regexp.MustCompile(`(^|[\s"'=:(,;>` + "`" + `])/(root|work|(home|Users)/[A-Za-z_][\w-]*)/[\w.]`)

// Put together, so that this file does not name them.
var registryHosts = regexp.MustCompile(`\b(` + strings.Join([]string{
	host("proxy", "golang", "org"), host("sum", "golang", "org"), host("goproxy", "(io|cn)"),
	host("pypi", "org"), host("files", "pythonhosted", "org"),
	host("registry", "npmjs", "org"), host("registry", "yarnpkg", "com"),
	host("(static|index)", "crates", "io"), host("repo1?", "maven", `(apache\.)?org`),
	host("(deb|security|ftp|snapshot)", "debian", "org"), host("(archive|security)", "ubuntu", "com"),
}, "|") + `)\b`)

func host(labels ...string) string { return strings.Join(labels, `\.`) }

func ofThisMachine(line string) []string {
	var found []string
	if m := machinePath.FindString(line); m != "" {
		found = append(found, "a path of somebody's machine: "+strings.TrimSpace(m))
	}
	if m := registryHosts.FindString(line); m != "" {
		found = append(found, "names the host of a package registry: "+m)
	}
	return found
}

func tracked(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z", "--cached")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal("git ls-files: ", err)
	}
	names := strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
	names = slices.DeleteFunc(names, func(name string) bool { // deleted, not yet committed
		_, err := os.Lstat(filepath.Join(root, name))
		return err != nil
	})
	if len(names) < 10 {
		t.Fatalf("only %d files are tracked: is this the right tree?", len(names))
	}
	return names
}
