package authn

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/identity"
)

// Evidence is what a connection proved: possession of the private key of a client
// certificate (the TLS handshake checks that), and the chain that came with it.
// One is made for each connection and judged again on every call.
type Evidence struct {
	chain       []*x509.Certificate
	fingerprint Fingerprint
	verdict     atomic.Pointer[verdict]
}

// verdict is a judgement of an Evidence. It holds while the live state is the same
// one and every certificate of the chain stays on the same side of its time.
type verdict struct {
	live                *live
	caller              identity.Caller
	err                 *fault.Error
	notBefore, notAfter time.Time
}

// NewEvidence takes the evidence from a completed handshake. It gives nil if the
// client showed no certificate, or resumed a session: Caller refuses nil.
func NewEvidence(s tls.ConnectionState) *Evidence {
	if !s.HandshakeComplete || s.DidResume || len(s.PeerCertificates) == 0 {
		return nil
	}
	return &Evidence{
		chain:       s.PeerCertificates,
		fingerprint: sha256.Sum256(s.PeerCertificates[0].Raw),
	}
}

// Fingerprint is the SHA-256 of the leaf that was shown; zeros for nil.
func (e *Evidence) Fingerprint() Fingerprint {
	if e == nil {
		return Fingerprint{}
	}
	return e.fingerprint
}

// PublicKey is the key of the leaf, whose private half the connection proved; nil for
// nil.
func (e *Evidence) PublicKey() crypto.PublicKey {
	if e == nil {
		return nil
	}
	return e.chain[0].PublicKey
}

// judge says who the evidence proves, from scratch.
func (e *Evidence) judge(l *live, now time.Time) *verdict {
	if _, revoked := l.revoked[e.fingerprint]; revoked {
		return &verdict{err: fault.New(fault.CertificateRevoked, "")}
	}
	leaf := e.chain[0]
	// Who vouches for the leaf is asked apart from its own time, so that an expired
	// certificate is told from one that nobody vouches for.
	timeless := *leaf
	timeless.NotBefore, timeless.NotAfter = now, now
	chain := append([]*x509.Certificate{&timeless}, e.chain[1:]...)

	v := &verdict{live: l, notBefore: leaf.NotBefore, notAfter: leaf.NotAfter}
	path, human := vouchedForHuman(chain, l.trust, now)
	if human {
		v.caller, v.err = judgeHuman(leaf, e.fingerprint, now)
	} else {
		path, v.err = vouchedForWorkload(chain, l.trust, now)
		if v.err == nil {
			v.caller, v.err = judgeWorkload(leaf, l, e.fingerprint, now)
		}
	}
	for _, c := range path {
		if c.NotBefore.After(v.notBefore) && c != &timeless {
			v.notBefore = c.NotBefore
		}
		if c.NotAfter.Before(v.notAfter) && c != &timeless {
			v.notAfter = c.NotAfter
		}
	}
	return v
}

// vouchedForHuman gives the path from the leaf to an operators' authority.
// Whatever else a certificate says about itself, one that they vouch for is a
// person's.
func vouchedForHuman(chain []*x509.Certificate, t *Trust, now time.Time) ([]*x509.Certificate, bool) {
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	paths, err := chain[0].Verify(x509.VerifyOptions{
		Roots: t.operators, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, false
	}
	return paths[0], true
}

func judgeHuman(leaf *x509.Certificate, f Fingerprint, now time.Time) (identity.Caller, *fault.Error) {
	if err := inTime(leaf, now); err != nil {
		return nil, err
	}
	if msg := checkLeaf(leaf); msg != "" {
		return nil, fault.New(fault.CertificateUntrusted, msg)
	}
	if !validOperator(leaf.Subject.CommonName) {
		return nil, fault.New(fault.CertificateUntrusted, "the certificate's common name is not an operator's name")
	}
	return identity.NewHuman(leaf.Subject.CommonName, f), nil
}

// vouchedForWorkload gives the path from the leaf to the bundle of its trust
// domain, by the rules of the SPIFFE X.509-SVID standard, sections 4 and 5.
func vouchedForWorkload(chain []*x509.Certificate, t *Trust, now time.Time) ([]*x509.Certificate, *fault.Error) {
	leaf := chain[0]
	id, err := x509svid.IDFromCert(leaf)
	if err != nil || id.String() != leaf.URIs[0].String() || id.Path() == "" {
		return nil, fault.Wrap(fault.NotAnSVID, "", err)
	}
	if !t.bundles.Has(id.TrustDomain()) {
		return nil, fault.New(fault.ForeignTrustDomain, "")
	}
	_, paths, err := x509svid.Verify(chain, t.bundles, x509svid.WithTime(now))
	switch {
	case err == nil:
		return paths[0], nil
	case leaf.IsCA || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return nil, fault.Wrap(fault.NotAnSVID, "an authority's certificate cannot be a caller's", err)
	default:
		return nil, fault.Wrap(fault.CertificateUntrusted, "", err)
	}
}

func judgeWorkload(leaf *x509.Certificate, l *live, f Fingerprint, now time.Time) (identity.Caller, *fault.Error) {
	if err := inTime(leaf, now); err != nil {
		return nil, err
	}
	if msg := checkLeaf(leaf); msg != "" {
		return nil, fault.New(fault.NotAnSVID, msg)
	}
	row, ok := l.workloads[leaf.URIs[0].String()]
	switch {
	case !ok:
		return nil, fault.New(fault.WorkloadNotRegistered, "")
	case !row.Enabled:
		return nil, fault.New(fault.WorkloadDisabled, "")
	}
	return identity.NewWorkload(row.SPIFFEID, row.ID, row.Automation, f), nil
}

func inTime(leaf *x509.Certificate, now time.Time) *fault.Error {
	switch {
	case now.After(leaf.NotAfter):
		return fault.New(fault.CertificateExpired, "")
	case now.Before(leaf.NotBefore):
		return fault.New(fault.CertificateNotYetValid, "")
	}
	return nil
}

// checkLeaf gives what is wrong with a client certificate, or "".
func checkLeaf(leaf *x509.Certificate) string {
	if leaf.IsCA || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return "an authority's certificate cannot be a caller's"
	}
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return "the certificate's key usage must have digitalSignature"
	}
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0 {
		return ""
	}
	for _, u := range leaf.ExtKeyUsage {
		if u == x509.ExtKeyUsageClientAuth {
			return ""
		}
	}
	return "the certificate's extended key usage must have clientAuth"
}

// validOperator reports whether s can be the last segment of "operators/{name}":
// 1 to 64 of a-z, A-Z, 0-9 and "._@-", beginning with a letter or digit. It is
// compared byte by byte, never folded.
func validOperator(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '.' && c != '_' && c != '@' && c != '-') {
			return false
		}
	}
	return true
}
