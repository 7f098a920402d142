package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/sallyport/sallyport/gateway/development"
)

// instructions are lines to paste into a shell. They work as printed.
func instructions(dir string, e development.Endpoints) string {
	curl := func(p development.Pair) string {
		return fmt.Sprintf("curl -sS --cacert %s --cert %s --key %s -H 'Content-Type: application/json'",
			quote(e.CA), quote(p.Cert), quote(p.Key))
	}
	url := "https://" + e.REST + "/v1/" + development.DemoKeyring
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# A development gateway in %s; its endpoints and files are in", dir)
	line("# %s", filepath.Join(filepath.Dir(e.CA), "endpoints.json"))
	line("")
	line("# A service encrypts ...")
	line(`C=$(%s %s:encrypt -d '{"plaintext":"'$(printf 'attack at dawn' | base64)'","context":{"record":"17"}}' | sed 's/.*"ciphertext":"\([^"]*\)".*/\1/'); echo "$C"`,
		curl(e.Workload), url)
	line("# ... and decrypts.")
	line(`%s %s:decrypt -d '{"ciphertext":"'"$C"'","context":{"record":"17"}}'; echo`, curl(e.Workload), url)
	line("# A person is refused.")
	line(`%s %s:decrypt -d '{"ciphertext":"'"$C"'","context":{"record":"17"}}'`, curl(e.Operator), url)
	line("# A service leases a client certificate that ends by itself ...")
	line(`%s %s:lease -d '{}'; echo`, curl(e.Workload), "https://"+e.REST+"/v1/"+development.DemoSecretRole)
	line("# ... a person gets none, and sees whose it is.")
	line(`%s %s:lease -d '{}'`, curl(e.Operator), "https://"+e.REST+"/v1/"+development.DemoSecretRole)
	line(`%s https://%s/v1/leases:search -d '{}'; echo`, curl(e.Operator), e.Control)
	line("# All of it is on record, and the record is whole.")
	line("%s audit show %s --key %s", quote(command()), quote(e.Audit.Dir), quote(e.Audit.Key))
	line("%s audit verify %s --key %s", quote(command()), quote(e.Audit.Dir), quote(e.Audit.Key))
	line("")
	return b.String()
}

// quote quotes a path for a POSIX shell if it needs it.
func quote(s string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+@", r)
	}
	if strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
