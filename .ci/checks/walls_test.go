package checks

import (
	"slices"
	"strings"
	"testing"
)

func TestWalls(t *testing.T) {
	g, err := load()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"crypto/envelope", "keys", "gateway/policy"} {
		if g[p] == nil {
			t.Errorf("package %s was not seen: is this the right tree?", p)
		}
	}
	for _, w := range Walls(g) {
		t.Error(w)
	}
}

// graph makes a graph of lines "from -> to to", "from test> to".
func graph(lines ...string) Graph {
	g := Graph{}
	add := func(name string) *Package {
		if g[name] == nil {
			own := slices.Contains([]string{"cmd", "gateway", "crypto", "keys", "proto", "clients"}, strings.Split(name, "/")[0]) &&
				!slices.Contains([]string{"crypto/rand", "crypto/tls", "crypto/x509"}, name)
			g[name] = &Package{Name: name, Own: own}
		}
		return g[name]
	}
	for _, l := range lines {
		f := strings.Fields(l)
		for _, to := range f[2:] {
			add(to)
			if p := add(f[0]); f[1] == "->" {
				p.Imports = append(p.Imports, to)
			} else {
				p.TestImports = append(p.TestImports, to)
			}
		}
	}
	return g
}

func TestWallsStand(t *testing.T) {
	good := graph(
		"crypto/envelope -> crypto/binding crypto/secret crypto/rand github.com/tink-crypto/tink-go/v2/tink",
		"crypto/envelope test> os testing github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset",
		"keys -> crypto/envelope github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset",
		"keys test> github.com/google/tink/go/aead",
		"keys/kms/awskms -> keys github.com/aws/aws-sdk-go-v2/service/kms",
		"keys/kms/awskms test> keys/kms/kmstest",
		"keys/kms/kmstest -> keys testing",
		"gateway/fault -> proto/sallyport/fault/v1",
		"gateway/policy -> gateway/identity gateway/fault github.com/cedar-policy/cedar-go",
		"gateway/audit/tlog -> gateway/audit github.com/transparency-dev/tessera",
		"gateway/pipeline -> gateway/authn gateway/policy gateway/audit gateway/identity gateway/fault",
		"gateway/transport -> gateway/pipeline gateway/fault",
		"gateway/transport test> gateway/gatewaytest",
		"gateway/dataplane -> gateway/pipeline keys",
		"gateway/control -> gateway/pipeline gateway/lease gateway/policy keys",
		"gateway/broker/localca -> gateway/lease gateway/fault crypto/x509",
		"gateway/store/sqlite -> keys gateway/lease gateway/control gateway/authn modernc.org/sqlite",
		"gateway/store/sqlite test> gateway/store/storetest",
		"gateway -> gateway/transport gateway/dataplane gateway/broker gateway/control gateway/config",
		"gateway/gatewaytest -> gateway gateway/store/sqlite clients/go testing",
		"cmd/sallyportd -> gateway gateway/config gateway/store/sqlite keys/kms/awskms gateway/audit/tlog flag",
		"cmd/sallyportd -> gateway/host",
		"gateway/host -> gateway gateway/store/sqlite gateway/transport keys/kms/local",
		"gateway/development -> gateway/host crypto/x509",
		"cmd/sallyport-dev -> gateway/development cmd/sallyport-dev/devca",
		"cmd/sallyport -> clients/go proto/sallyport/control/v1 gateway/audit/tlog gateway/policy github.com/spf13/cobra",
		"cmd/hammer -> clients/go",
		"clients/go -> proto/sallyport/data/v1",
	)
	for _, w := range Walls(good) {
		t.Errorf("a good house is refused: %s", w)
	}

	bad := map[string]string{
		"crypto opens":              "crypto/envelope -> os",
		"crypto dials":              "crypto/stream -> net/http",
		"crypto depends":            "crypto/secret -> golang.org/x/crypto/hkdf",
		"crypto up":                 "crypto/envelope -> keys",
		"crypto test up":            "crypto/envelope test> gateway/fault",
		"keys up":                   "keys -> gateway/fault",
		"keys test up":              "keys test> gateway/gatewaytest",
		"keys chooses":              "keys -> keys/kms/local",
		"provider sideways":         "keys/kms/local -> keys/kms/awskms",
		"vendor outside":            "gateway/dataplane -> github.com/aws/aws-sdk-go-v2/service/kms",
		"vendor in wrong room":      "keys/kms/vaulttransit -> github.com/aws/aws-sdk-go-v2/aws",
		"vendor in a test":          "keys test> github.com/aws/aws-sdk-go-v2/aws",
		"tessera outside":           "gateway/audit/journal -> github.com/transparency-dev/tessera",
		"clear keys":                "gateway/control -> github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset",
		"clear keys in crypto":      "crypto/envelope -> github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset",
		"old tink":                  "keys -> github.com/google/tink/go/aead",
		"sqlite outside":            "cmd/sallyportd -> modernc.org/sqlite",
		"policy stores":             "gateway/policy -> gateway/store/sqlite",
		"policy impure":             "gateway/policy/cases -> os",
		"leaf with leaf":            "gateway/identity -> gateway/fault",
		"row 2 sideways":            "gateway/authn -> gateway/audit",
		"row 3 up":                  "gateway/lease -> gateway/broker",
		"row 4 sideways":            "gateway/control -> gateway/dataplane",
		"transport knows keys":      "gateway/transport -> keys",
		"dataplane by another":      "gateway/console -> gateway/dataplane",
		"broker by cmd":             "cmd/sallyportd -> gateway/broker",
		"control by cmd":            "cmd/sallyport -> gateway/control",
		"gateway chooses":           "gateway -> gateway/store/sqlite",
		"store sideways":            "gateway/store/postgres -> gateway/store/sqlite",
		"source sideways":           "gateway/broker/vault -> gateway/broker/localca",
		"test package":              "cmd/sallyport-dev -> gateway/gatewaytest",
		"testing":                   "gateway/policy -> testing",
		"httptest":                  "gateway/transport -> net/http/httptest",
		"flags":                     "gateway/config -> flag",
		"command line inside":       "cmd/sallyport -> gateway/pipeline",
		"hammer inside":             "cmd/hammer -> gateway",
		"client inside":             "clients/go -> gateway/fault",
		"command imports command":   "cmd/sallyportd -> cmd/sallyport",
		"no room":                   "gateway/helpers -> fmt",
		"development by another":    "gateway/console -> gateway/development",
		"host by the gateway":       "gateway -> gateway/host",
		"daemon makes credentials":  "cmd/sallyportd -> cmd/sallyportd/devca",
		"daemon makes them further": "gateway/host -> gateway/config/devseed",
	}
	for name, line := range bad {
		t.Run(name, func(t *testing.T) {
			g := graph(line, "cmd/sallyportd -> gateway/host")
			if got := Walls(g); len(got) != 1 {
				t.Errorf("%s: found %q, want one", line, got)
			}
		})
	}
}
