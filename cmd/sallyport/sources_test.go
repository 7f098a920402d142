package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// The script gives Vault the documents as they are, whatever is in them, and the shell
// runs nothing of it.
func TestAScriptQuotesWhatIsInIt(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct{ kind, name, content, want string }{
		{"policy", "plain", "path \"a\" {}\n", "[policy][write][plain][-]\npath \"a\" {}\n"},
		{"policy", "it's $(touch ran) `touch ran`", "$(touch ran) `touch ran` \\ $HOME", "[policy][write][it's $(touch ran) `touch ran`][-]\n$(touch ran) `touch ran` \\ $HOME\n"},
		{"policy", "ends", "a\nEOF\ntouch ran\nEOFF\nb", "[policy][write][ends][-]\na\nEOF\ntouch ran\nEOFF\nb\n"},
		{"token_role", "r; touch ran", "{}", "[write][auth/token/roles/r; touch ran][-]\n{}\n"},
	} {
		var script strings.Builder
		script.WriteString("vault() { printf '[%s]' \"$@\"; echo; cat; }\n")
		if err := writeDocument(&script, &controlv1.SourceDocument{Kind: test.kind, Name: test.name, Content: test.content}); err != nil {
			t.Fatal(err)
		}
		sh := exec.Command("sh")
		sh.Dir, sh.Stdin = dir, strings.NewReader(script.String())
		out, err := sh.Output()
		if err != nil || string(out) != test.want {
			t.Errorf("%s: %q, %v\n%s", test.name, out, err, script.String())
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
		t.Error("the shell ran what was in a document")
	}
	for _, d := range []*controlv1.SourceDocument{{Kind: "other", Name: "x"}, {Kind: "policy", Name: "x", Content: "\x1b[2J"}} {
		if err := writeDocument(new(strings.Builder), d); err == nil {
			t.Errorf("%v was written", d)
		}
	}
}
