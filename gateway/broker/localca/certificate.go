package localca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/crypto/secret"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

const (
	// backdate is how far behind the gateway's clock a verifier's may be.
	backdate = time.Minute
	// maxCommonName is ub-common-name of RFC 5280 appendix A.1.
	maxCommonName = 64
	maxDNSNames   = 16
	maxDNSName    = 253 // RFC 1035 section 2.3.4, as text
	maxLabel      = 63

	blockCertificate = "CERTIFICATE"
	blockPrivateKey  = "PRIVATE KEY"
)

// parametersOf gives the parameters of a role if they can be served; the error is
// INVALID_ARGUMENT.
func parametersOf(p *controlv1.SecretParameters) (*controlv1.LocalCertificate, error) {
	bad := func(detail string) (*controlv1.LocalCertificate, error) {
		return nil, fault.New(fault.InvalidArgument, detail)
	}
	kind, ok := p.GetKind().(*controlv1.SecretParameters_LocalCertificate)
	if !ok || kind == nil || kind.LocalCertificate == nil {
		return bad("the source serves local_certificate only")
	}
	c := kind.LocalCertificate
	if c.GetCommonName() != "" && !validCommonName(c.GetCommonName()) {
		return bad("common_name must be 1 to 64 printable ASCII characters, without spaces at its ends")
	}
	if len(c.GetDnsNames()) > maxDNSNames {
		return bad("dns_names must be at most 16")
	}
	seen := make(map[string]bool, len(c.GetDnsNames()))
	for _, name := range c.GetDnsNames() {
		if !validDNSName(name) || seen[name] {
			return bad("dns_names must be different host names in lower case, without wildcards")
		}
		seen[name] = true
	}
	return c, nil
}

// validCommonName admits what looks the same to everybody who reads it.
func validCommonName(s string) bool {
	if s == "" || len(s) > maxCommonName || s != strings.TrimSpace(s) {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// validDNSName admits host names (RFC 1123 section 2.1) in their one lower-case form;
// names in other scripts are written in their xn-- form.
func validDNSName(s string) bool {
	if len(s) > maxDNSName {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
		last = label
	}
	// Whatever ends in a number could be read as an address.
	return strings.Trim(last, "0123456789") != ""
}

// subjectOf is whom a certificate is for. Tenant and role are always in it, whatever
// the common name claims.
func subjectOf(p *controlv1.LocalCertificate, o lease.Order) (pkix.Name, error) {
	name := p.GetCommonName()
	if name == "" {
		name = o.Registration
	}
	if !validCommonName(name) {
		return pkix.Name{}, fault.New(fault.InvalidArgument, "the workload's registration has no id that could be a common name")
	}
	return pkix.Name{
		Organization:       []string{string(o.Lease.Role.Tenant)},
		OrganizationalUnit: []string{o.Lease.Role.Role},
		CommonName:         name,
	}, nil
}

func parseSerial(s string) (id lease.ID, err error) {
	b, err := hex.DecodeString(s)
	if err == nil && len(b) != len(id) {
		err = errors.New("not 16 bytes")
	}
	if err != nil {
		return lease.ID{}, err
	}
	return lease.ID(b), nil
}

// ticket is a certificate that is not signed yet. It holds nothing secret: the key is
// made with the certificate.
type ticket struct {
	source  *Source
	anchor  anchor
	subject pkix.Name
	names   []string
	begin   time.Time
	used    atomic.Bool
}

// Anchor implements lease.Ticket.
func (t *ticket) Anchor() lease.Anchor { return lease.Anchor{Handle: t.anchor.handle()} }

// Discard implements lease.Ticket.
func (t *ticket) Discard(context.Context) { t.used.Store(true) }

// Issue implements lease.Ticket. It asks nobody and takes well below a millisecond.
func (t *ticket) Issue(context.Context) (lease.Issued, error) {
	if t.used.Swap(true) {
		return lease.Issued{}, fault.New(fault.SourceRefused, "the ticket is used up")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return lease.Issued{}, fault.Wrap(fault.SourceUnavailable, "", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, t.template(), t.source.authority, &key.PublicKey, t.source.key)
	if err != nil {
		return lease.Issued{}, fault.Wrap(fault.SourceUnavailable, "", err)
	}
	private, err := encodeKey(key)
	if err != nil {
		return lease.Issued{}, fault.Wrap(fault.SourceUnavailable, "", err)
	}
	return lease.Issued{
		Value: lease.Value{
			{Name: "certificate", Value: secret.Take(pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: der}))},
			{Name: "private_key", Value: private},
			{Name: "issuing_ca", Value: secret.Take(append([]byte(nil), t.source.authorityPEM...))},
			{Name: "serial_number", Value: secret.Take([]byte(t.anchor.serial.String()))},
		},
		Ref: t.anchor.serial.String(), Expires: t.anchor.end,
	}, nil
}

// template is a certificate for clients and nothing else. It names no SPIFFE id, so
// that it is no SVID, not even to who trusts the authority by mistake.
func (t *ticket) template() *x509.Certificate {
	return &x509.Certificate{
		// 16 bytes, read as a positive number: 17 octets at most (RFC 5280 section 4.1.2.2).
		SerialNumber:          new(big.Int).SetBytes(t.anchor.serial[:]),
		Subject:               t.subject,
		DNSNames:              t.names,
		NotBefore:             t.begin,
		NotAfter:              t.anchor.end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		SignatureAlgorithm:    x509.ECDSAWithSHA256,
	}
}

// encodeKey gives a key as PKCS #8 in PEM. Its scratch is wiped; what the standard
// library copies meanwhile becomes garbage.
func encodeKey(key *ecdsa.PrivateKey) (secret.Bytes, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	defer secret.Wipe(der)
	if err != nil {
		return secret.Bytes{}, err
	}
	return secret.Take(encodePEM(blockPrivateKey, der)), nil
}

// encodePEM is pem.Encode without buffers that grow and are left behind.
func encodePEM(block string, der []byte) []byte {
	const line = 64
	text := make([]byte, base64.StdEncoding.EncodedLen(len(der)))
	defer secret.Wipe(text)
	base64.StdEncoding.Encode(text, der)
	out := make([]byte, 0, len(text)+len(text)/line+2*len(block)+64)
	out = append(out, "-----BEGIN "+block+"-----\n"...)
	for rest := text; len(rest) > 0; {
		n := min(line, len(rest))
		out = append(append(out, rest[:n]...), '\n')
		rest = rest[n:]
	}
	return append(out, "-----END "+block+"-----\n"...)
}
