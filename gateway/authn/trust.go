package authn

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Trust is what vouches for callers: a bundle for each trust domain, and the
// operators' authorities. It does not change; a reload makes a new one.
type Trust struct {
	bundles   *x509bundle.Set
	operators *x509.CertPool
}

// NewTrust parses PEM bundles: one for each trust domain of workloads, keyed by
// its name ("example.org"), and the operators' one, which may be empty. It refuses
// an authority that stands in both, because a person's certificate could then
// pass for a workload's.
func NewTrust(domains map[string][]byte, operators []byte) (*Trust, error) {
	t := &Trust{bundles: x509bundle.NewSet(), operators: x509.NewCertPool()}
	seen := map[string]string{}
	for name, pemBytes := range domains {
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil || td.Name() != name {
			return nil, fmt.Errorf("trust domain %q: not a trust domain name", name)
		}
		authorities, err := parseAuthorities(pemBytes)
		if err != nil {
			return nil, fmt.Errorf("trust domain %q: %w", name, err)
		}
		for _, c := range authorities {
			seen[string(c.RawSubjectPublicKeyInfo)] = name
		}
		t.bundles.Add(x509bundle.FromX509Authorities(td, authorities))
	}
	if len(operators) == 0 {
		return t, nil
	}
	authorities, err := parseAuthorities(operators)
	if err != nil {
		return nil, fmt.Errorf("operators' authority: %w", err)
	}
	for _, c := range authorities {
		if name, dup := seen[string(c.RawSubjectPublicKeyInfo)]; dup {
			return nil, fmt.Errorf("the operators' authority %q is also an authority of trust domain %q", c.Subject, name)
		}
		t.operators.AddCert(c)
	}
	return t, nil
}

func parseAuthorities(pemBytes []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for rest := pemBytes; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a PEM block of type %q among the certificates", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if !c.IsCA {
			return nil, fmt.Errorf("certificate %q is not an authority", c.Subject)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("no certificate in the bundle")
	}
	return out, nil
}
