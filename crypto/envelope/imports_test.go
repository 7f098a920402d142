package envelope_test

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// allowed lists every import of the crypto packages outside of tests. None can
// open a file or a socket; embed reads at compile time.
var allowed = []string{
	"bytes", "crypto/aes", "crypto/cipher", "crypto/ecdh", "crypto/hmac", "crypto/hpke", "crypto/rand", "crypto/sha256", "crypto/subtle",
	"embed", "encoding/base64", "encoding/binary", "encoding/hex", "encoding/json", "errors", "fmt", "hash", "io",
	"iter", "log/slog", "runtime/secret", "slices", "strings", "sync", "unicode/utf8",
	"github.com/sallyport/sallyport/crypto/binding", "github.com/sallyport/sallyport/crypto/secret",
}

func TestImports(t *testing.T) {
	files := 0
	for _, dir := range []string{".", "../binding", "../delivery", "../secret", "../testvectors"} {
		paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			files++
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range f.Imports {
				if name, _ := strconv.Unquote(spec.Path.Value); !slices.Contains(allowed, name) {
					t.Errorf("%s imports %s", path, name)
				}
			}
		}
	}
	if files < 15 {
		t.Errorf("looked at %d files only", files)
	}
}
