package checks

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"
)

// A denial refuses versions of a module: all, or those below the first good one.
type denial struct {
	module, below, reason string
}

// parseDenials reads denied-modules.txt. A line it does not understand is an error: a
// rule with a slip in it would refuse nothing.
func parseDenials(text []byte) ([]denial, error) {
	var denials []denial
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 3 {
			return nil, fmt.Errorf("line %d: want module, range, reason", n)
		}
		d := denial{module: f[0], reason: strings.Join(f[2:], " ")}
		if f[1] != "*" {
			below, ok := strings.CutPrefix(f[1], "<")
			if !ok || !semver.IsValid(below) {
				return nil, fmt.Errorf("line %d: range %q: want * or <vX.Y.Z", n, f[1])
			}
			d.below = below
		}
		denials = append(denials, d)
	}
	return denials, lines.Err()
}

// Denied lists what a go.mod asks for and may not have. A tidy go.mod names every
// module that a package comes from, so that nothing needs to be resolved. A replace
// would make the names lie, and is refused too.
func Denied(mod *modfile.File, denials []denial) []string {
	var found []string
	for _, r := range mod.Require {
		for _, d := range denials {
			if r.Mod.Path == d.module && (d.below == "" || semver.Compare(r.Mod.Version, d.below) < 0) {
				found = append(found, fmt.Sprintf("%s %s: %s", r.Mod.Path, r.Mod.Version, d.reason))
			}
		}
	}
	for _, r := range mod.Replace {
		found = append(found, fmt.Sprintf("%s is replaced by %s: no replacements", r.Old.Path, r.New.Path))
	}
	return found
}
