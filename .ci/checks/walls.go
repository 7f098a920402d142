package checks

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// A room is a part of the house and the other rooms that its programs, not its
// tests, may import. A package belongs to the most specific room that matches.
// Within its own folder a package may import freely, except where below says that
// each folder below the room stands alone.
type room struct {
	name  string
	may   []string
	alone bool
}

// The rows of the house, from the ground up. A row sees those below it and none of
// its own.
var (
	ground = []string{"keys", "crypto/...", "proto/..."}
	row1   = []string{"gateway/identity/...", "gateway/fault/..."}
	row2   = []string{"gateway/authn", "gateway/policy", "gateway/policy/...", "gateway/audit"}
	row3   = []string{"gateway/pipeline/...", "gateway/lease/..."}
	row4   = []string{"gateway/transport/...", "gateway/dataplane/...", "gateway/broker", "gateway/control/..."}

	below2 = slices.Concat(ground, row1)
	below3 = slices.Concat(below2, row2)
	below4 = slices.Concat(below3, row3)
	below5 = slices.Concat(below4, row4)
	// What a program that runs a gateway chooses from: every implementation, but
	// none of the rooms that the gateway alone assembles.
	choice = slices.Concat(below4, []string{
		"gateway", "gateway/config/...", "gateway/console/...", "gateway/lockdown/...",
		"gateway/authn/...", "gateway/audit/...", "gateway/broker/vault/...", "gateway/broker/localca/...",
		"gateway/store/...", "keys/kms/...",
	})
)

// house is section 3 of the design as a table. A package without a room fails.
var house = []room{
	{name: "proto/..."},
	{name: "crypto/..."},
	{name: "keys", may: []string{"crypto/...", "keys/internal/..."}},
	{name: "keys/...", may: []string{"crypto/...", "keys"}},
	{name: "keys/kms/...", may: []string{"crypto/...", "keys"}, alone: true},

	{name: "gateway/identity/...", may: []string{"proto/..."}},
	{name: "gateway/fault/...", may: []string{"proto/..."}},
	{name: "gateway/authn/...", may: below2},
	{name: "gateway/policy/...", may: below2},
	{name: "gateway/audit", may: below2},
	{name: "gateway/pipeline/...", may: below3},
	{name: "gateway/lease/...", may: below3},
	// transport speaks; what it carries is opaque to it.
	{name: "gateway/transport/...", may: without(below4, "keys")},
	{name: "gateway/dataplane/...", may: below4},
	{name: "gateway/broker", may: below4},
	{name: "gateway/control/...", may: below4},
	{name: "gateway", may: slices.Concat(below5, []string{
		"gateway/config/...", "gateway/console/...", "gateway/lockdown/...", "gateway/internal/...",
	})},

	// At the side: implementations, each knowing what it implements.
	{name: "gateway/audit/journal/...", may: slices.Concat(below2, []string{"gateway/audit"})},
	{name: "gateway/audit/tlog/...", may: slices.Concat(below2, []string{"gateway/audit", "gateway/audit/journal/..."})},
	{name: "gateway/audit/audittest/...", may: slices.Concat(below2, []string{"gateway/audit", "gateway/audit/..."})},
	{name: "gateway/broker/vault/...", may: slices.Concat(below2, []string{"gateway/lease"})},
	{name: "gateway/broker/localca/...", may: slices.Concat(below2, []string{"gateway/lease"})},
	{name: "gateway/broker/vaulttest/..."},
	{name: "gateway/store/...", may: slices.Concat(below3, []string{"gateway/lease", "gateway/control", "gateway/store"}), alone: true},
	{name: "gateway/config/...", may: below2},
	{name: "gateway/lockdown/..."},
	{name: "gateway/gatewaytest/...", may: []string{"gateway", "gateway/...", "keys/...", "crypto/...", "proto/...", "clients/go/..."}},

	// Outside, knowing only proto.
	{name: "gateway/console/...", may: []string{"proto/..."}},
	{name: "clients/go/...", may: []string{"proto/...", "crypto/..."}},
	{name: "clients/conformance/...", may: []string{"proto/...", "crypto/...", "clients/go/..."}},
	// The command line is a client, and it reads the audit log and policies offline
	// with the code that writes and decides them.
	{name: "cmd/sallyport/...", may: []string{
		"proto/...", "clients/go/...", "crypto/...", "gateway/policy/...", "gateway/audit/...",
	}},
	{name: "cmd/hammer/...", may: []string{"proto/...", "clients/go/..."}},

	// From a configuration to a running gateway, for the daemon and the development
	// command; the second makes credentials by itself.
	{name: "gateway/host/...", may: slices.Concat(choice, []string{"gateway/transport/..."})},
	{name: "gateway/development/...", may: slices.Concat(choice, []string{"gateway/host/..."})},
	{name: "cmd/sallyportd/...", may: slices.Concat(choice, []string{"gateway/host/..."})},
	{name: "cmd/sallyport-dev/...", may: slices.Concat(choice, []string{"gateway/host/...", "gateway/development/...", "clients/go/..."})},
}

// A fence keeps something inside: only the named places may import what, their tests
// included. The tests in also may import it as well.
type fence struct {
	what  []string
	only  []string
	tests []string
	why   string
}

var fences = []fence{
	{what: []string{"github.com/aws/..."}, only: []string{"keys/kms/awskms/..."}, why: "only keys/kms/x imports vendor SDK x"},
	{
		what: []string{"github.com/hashicorp/vault/...", "github.com/openbao/openbao/..."},
		only: []string{"keys/kms/vaulttransit/...", "gateway/broker/vault/..."},
		why:  "only keys/kms/x and gateway/broker/x import vendor SDK x",
	},
	{what: []string{"cloud.google.com/go/..."}, only: []string{"keys/kms/gcpkms/..."}, why: "only keys/kms/x imports vendor SDK x"},
	{what: []string{"github.com/Azure/..."}, only: []string{"keys/kms/azurekms/..."}, why: "only keys/kms/x imports vendor SDK x"},
	{what: []string{"github.com/miekg/pkcs11/...", "github.com/ThalesGroup/..."}, only: []string{"keys/kms/pkcs11/..."}, why: "only keys/kms/x imports vendor SDK x"},
	{what: []string{"github.com/transparency-dev/tessera/..."}, only: []string{"gateway/audit/tlog/..."}, why: "only audit/tlog imports tessera"},
	{what: []string{"modernc.org/..."}, only: []string{"gateway/store/sqlite/..."}, why: "the driver is the business of the store"},
	{
		what:  []string{"github.com/jackc/..."},
		only:  []string{"gateway/store/postgres/..."},
		tests: []string{"clients/go/..."}, // rotating credentials, shown with a real driver
		why:   "the driver is the business of the store",
	},
	{what: []string{"github.com/cedar-policy/..."}, only: []string{"gateway/policy/..."}, why: "the policy language stays behind the decision"},
	{
		what:  []string{"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"},
		only:  []string{"keys/..."},
		tests: []string{"crypto/..."},
		why:   "here key material is in clear",
	},
	{
		what: []string{"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess", "github.com/tink-crypto/tink-go/v2/secretdata"},
		only: []string{"keys/...", "crypto/..."},
		why:  "here key material is in clear",
	},
	{what: []string{"github.com/google/tink/..."}, tests: []string{"keys/...", "crypto/..."}, why: "archived; kept for the compatibility test"},
	{what: []string{"flag", "github.com/spf13/..."}, only: []string{"cmd/..."}, tests: []string{"..."}, why: "only cmd reads flags"},
}

// opens can open a file or a socket, or hold a function that does.
var opens = []string{
	"os/...", "net/...", "syscall/...", "plugin", "io/ioutil", "path/filepath", "database/sql/...",
	"crypto/tls", "crypto/x509", "text/template", "html/template", "debug/...", "internal/...", "C",
	"golang.org/x/sys/...", "golang.org/x/net/...",
}

// makesCredentials matches the folders of code that makes credentials by itself, for
// development: sallyportd links none of it.
var makesCredentials = regexp.MustCompile(`(^|/)(sallyport-dev|development|dev|dev(ca|seed|env|kit))(/|$)`)

// Walls lists every import of the product that crosses a wall.
func Walls(g Graph) []string {
	var found []string
	report := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }

	for _, p := range g {
		if !p.Own {
			continue
		}
		r, ok := roomOf(p.Name)
		if !ok {
			report("%s has no room in the house: see design.md section 3 and .ci/checks/walls.go", p.Name)
			continue
		}
		for _, i := range p.Imports {
			switch to := g[i]; {
			case isTestPackage(i) && !isTestPackage(p.Name):
				report("%s imports %s: production code never imports a test package", p.Name, i)
			case to != nil && to.Own && !r.admits(p.Name, i):
				report("%s imports %s: %s may import %s", p.Name, i, r.name, list(r.may))
			}
		}
		for _, w := range prohibited(p) {
			report("%s", w)
		}
	}
	for _, i := range g.Links("cmd/sallyportd") {
		if to := g[i]; to != nil && to.Own && makesCredentials.MatchString(i) {
			report("cmd/sallyportd links %s: the daemon holds no code that makes credentials by itself", i)
		}
	}
	slices.Sort(found)
	return found
}

// prohibited lists what no room may do, whatever its neighbours.
func prohibited(p *Package) (found []string) {
	for _, i := range p.Imports {
		if matches("crypto/...", p.Name) {
			if matchesAny(opens, i) {
				found = append(found, fmt.Sprintf("%s imports %s: crypto imports nothing that can open a file or a socket", p.Name, i))
			} else if isExternal(i) && !matches("github.com/tink-crypto/tink-go/v2/...", i) {
				found = append(found, fmt.Sprintf("%s imports %s: crypto knows the standard library and Tink only", p.Name, i))
			}
		}
		if matches("gateway/policy/...", p.Name) && matchesAny(opens, i) {
			found = append(found, fmt.Sprintf("%s imports %s: policy is pure", p.Name, i))
		}
		for _, f := range fences {
			if matchesAny(f.what, i) && !matchesAny(f.only, p.Name) {
				found = append(found, fmt.Sprintf("%s imports %s, which belongs to %s: %s", p.Name, i, list(f.only), f.why))
			}
		}
	}
	for _, i := range p.TestImports {
		for _, f := range fences {
			if matchesAny(f.what, i) && !matchesAny(f.only, p.Name) && !matchesAny(f.tests, p.Name) && !slices.Contains(f.tests, "...") {
				found = append(found, fmt.Sprintf("a test of %s imports %s, which belongs to %s: %s", p.Name, i, list(f.only), f.why))
			}
		}
		switch {
		case matches("keys/...", p.Name) && matches("gateway/...", i),
			matches("crypto/...", p.Name) && (matches("gateway/...", i) || matches("keys/...", i)):
			found = append(found, fmt.Sprintf("a test of %s imports %s: gateway, keys, crypto stand in one line, never back", p.Name, i))
		}
	}
	return found
}

func roomOf(name string) (room, bool) {
	var best room
	for _, r := range house {
		if matches(r.name, name) && len(r.name) > len(best.name) {
			best = r
		}
	}
	return best, best.name != ""
}

// admits tells whether from, a package of the room, may import to.
func (r room) admits(from, to string) bool {
	if matchesAny(r.may, to) {
		return true
	}
	base := strings.TrimSuffix(r.name, "/...")
	if !matches(base+"/...", to) {
		return false
	}
	other, _ := roomOf(to)
	if other.name != r.name {
		return false
	}
	return !r.alone || firstBelow(base, from) == firstBelow(base, to)
}

// firstBelow is the folder right below base that holds name.
func firstBelow(base, name string) string {
	rest := strings.TrimPrefix(strings.TrimPrefix(name, base), "/")
	first, _, _ := strings.Cut(rest, "/")
	return first
}

// isTestPackage knows the packages that exist for tests: testing and its kin, and those
// whose name ends in test.
func isTestPackage(name string) bool {
	return matches("testing/...", name) || strings.HasSuffix(path.Base(name), "test") ||
		matchesAny([]string{"pgregory.net/rapid/...", "github.com/google/go-cmp/...", "github.com/rogpeppe/go-internal/testscript/...", "github.com/stretchr/testify/..."}, name)
}

func isExternal(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return strings.Contains(first, ".")
}

func without(list []string, drop ...string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(drop, s) })
}

func list(patterns []string) string {
	if len(patterns) == 0 {
		return "nothing of ours"
	}
	return strings.Join(patterns, ", ")
}
