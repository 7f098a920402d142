package authn_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/identity"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// authority is a certificate authority of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
	}
	key := newKey(t)
	return authority{sign(t, template, template, &key.PublicKey, key), key}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, template, parent *x509.Certificate, pub *ecdsa.PublicKey, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (a authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// leaf issues a good client certificate, changed by the given functions.
func (a authority) leaf(t *testing.T, uri string, change ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "alice"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore:   now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
	}
	if uri != "" {
		template.URIs = []*url.URL{parseURL(t, uri)}
	}
	for _, c := range change {
		c(template)
	}
	return sign(t, template, a.cert, &newKey(t).PublicKey, a.key)
}

func parseURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func evidence(chain ...*x509.Certificate) *authn.Evidence {
	return authn.NewEvidence(tls.ConnectionState{HandshakeComplete: true, PeerCertificates: chain})
}

// memory is a Register in memory. The real one is tested in gateway/store.
type memory struct {
	authn.Register
	workloads   []authn.Registration
	revocations []authn.Revocation
	err         error
}

func (m *memory) Workloads(context.Context, string, int) ([]authn.Registration, error) {
	return m.workloads, m.err
}

func (m *memory) Revocations(context.Context, authn.Fingerprint, int) ([]authn.Revocation, error) {
	return m.revocations, m.err
}

// scene is an authenticator with its authorities.
type scene struct {
	*authn.Authenticator
	workloads, operators, stranger authority
	register                       *memory
	clock                          time.Time
}

const (
	billing = "spiffe://example.org/billing"
	robot   = "spiffe://example.org/robot"
)

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{
		workloads: newAuthority(t, "workloads"), operators: newAuthority(t, "operators"),
		stranger: newAuthority(t, "stranger"), clock: now,
		register: &memory{workloads: []authn.Registration{
			{ID: "billing", SPIFFEID: billing, Enabled: true},
			{ID: "robot", SPIFFEID: robot, Enabled: true, Automation: true},
			{ID: "off", SPIFFEID: "spiffe://example.org/off"},
		}},
	}
	trust, err := authn.NewTrust(map[string][]byte{"example.org": s.workloads.pem()}, s.operators.pem())
	if err != nil {
		t.Fatal(err)
	}
	s.Authenticator, err = authn.New(t.Context(), trust, s.register, func() time.Time { return s.clock })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wantReason(t *testing.T, err error, want fault.Reason) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Reason != want {
		t.Fatalf("got %v, want %v", err, want)
	}
}

func TestWhoIsWho(t *testing.T) {
	s := newScene(t)
	c, err := s.Caller(evidence(s.workloads.leaf(t, billing)))
	if w, ok := c.(identity.Workload); err != nil || !ok || w.Name() != billing || w.Registration() != "billing" || w.Automation() {
		t.Errorf("a registered workload: %v, %v", c, err)
	}
	c, err = s.Caller(evidence(s.operators.leaf(t, "")))
	if h, ok := c.(identity.Human); err != nil || !ok || h.Name() != "operators/alice" {
		t.Errorf("an operator: %v, %v", c, err)
	}
	// What the operators' authority vouches for is a person's, whatever it says.
	c, err = s.Caller(evidence(s.operators.leaf(t, billing)))
	if _, ok := c.(identity.Human); err != nil || !ok {
		t.Errorf("a person's certificate with a workload's id: %v, %v", c, err)
	}
}

func TestRefusals(t *testing.T) {
	s := newScene(t)
	old := func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-2*time.Hour), now.Add(-time.Minute) }
	ancient := func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.AddDate(-5, 0, 0), now.AddDate(-4, 0, 0) }
	future := func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(time.Minute), now.Add(time.Hour) }
	noURI := func(c *x509.Certificate) { c.URIs = nil }
	tests := map[string]struct {
		leaf *x509.Certificate
		want fault.Reason
	}{
		"expired":                     {s.workloads.leaf(t, billing, old), fault.CertificateExpired},
		"expired before its CA":       {s.workloads.leaf(t, billing, ancient), fault.CertificateExpired},
		"expired, a person's":         {s.operators.leaf(t, "", ancient), fault.CertificateExpired},
		"expired, a stranger's":       {s.stranger.leaf(t, billing, old), fault.CertificateUntrusted},
		"not valid yet":               {s.workloads.leaf(t, billing, future), fault.CertificateNotYetValid},
		"stranger's CA":               {s.stranger.leaf(t, billing), fault.CertificateUntrusted},
		"foreign trust domain":        {s.workloads.leaf(t, "spiffe://other.org/billing"), fault.ForeignTrustDomain},
		"no URI":                      {s.workloads.leaf(t, "", noURI), fault.NotAnSVID},
		"stranger without URI":        {s.stranger.leaf(t, "", noURI), fault.NotAnSVID},
		"no path":                     {s.workloads.leaf(t, "spiffe://example.org"), fault.NotAnSVID},
		"https URI":                   {s.workloads.leaf(t, "https://example.org/billing"), fault.NotAnSVID},
		"upper-case domain":           {s.workloads.leaf(t, "spiffe://EXAMPLE.org/billing"), fault.NotAnSVID},
		"port":                        {s.workloads.leaf(t, "spiffe://example.org:1/billing"), fault.NotAnSVID},
		"query":                       {s.workloads.leaf(t, "spiffe://example.org/billing?a=b"), fault.NotAnSVID},
		"user":                        {s.workloads.leaf(t, "spiffe://root@example.org/billing"), fault.NotAnSVID},
		"percent":                     {s.workloads.leaf(t, "spiffe://example.org/%62illing"), fault.NotAnSVID},
		"dot segment":                 {s.workloads.leaf(t, "spiffe://example.org/x/../billing"), fault.NotAnSVID},
		"empty segment":               {s.workloads.leaf(t, "spiffe://example.org//billing"), fault.NotAnSVID},
		"trailing slash":              {s.workloads.leaf(t, "spiffe://example.org/billing/"), fault.NotAnSVID},
		"not registered":              {s.workloads.leaf(t, "spiffe://example.org/nobody"), fault.WorkloadNotRegistered},
		"other case":                  {s.workloads.leaf(t, "spiffe://example.org/Billing"), fault.WorkloadNotRegistered},
		"disabled":                    {s.workloads.leaf(t, "spiffe://example.org/off"), fault.WorkloadDisabled},
		"the authority itself":        {s.workloads.cert, fault.NotAnSVID},
		"operators' authority itself": {s.operators.cert, fault.CertificateUntrusted},
		"two URIs": {s.workloads.leaf(t, billing, func(c *x509.Certificate) {
			c.URIs = append(c.URIs, parseURL(t, robot))
		}), fault.NotAnSVID},
		"an authority as leaf": {s.workloads.leaf(t, billing, func(c *x509.Certificate) {
			c.IsCA, c.BasicConstraintsValid = true, true
		}), fault.NotAnSVID},
		"signs certificates": {s.workloads.leaf(t, billing, func(c *x509.Certificate) {
			c.KeyUsage |= x509.KeyUsageCertSign
		}), fault.NotAnSVID},
		"no digitalSignature": {s.workloads.leaf(t, billing, func(c *x509.Certificate) {
			c.KeyUsage = x509.KeyUsageKeyEncipherment
		}), fault.NotAnSVID},
		"server certificate": {s.workloads.leaf(t, billing, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), fault.NotAnSVID},
		"person without a name": {s.operators.leaf(t, "", func(c *x509.Certificate) {
			c.Subject.CommonName = ""
		}), fault.CertificateUntrusted},
		"person with a path": {s.operators.leaf(t, "", func(c *x509.Certificate) {
			c.Subject.CommonName = "alice/root"
		}), fault.CertificateUntrusted},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := s.Caller(evidence(tt.leaf))
			if c != nil {
				t.Fatalf("an identity came with the refusal: %v", c)
			}
			wantReason(t, err, tt.want)
		})
	}
	_, err := s.Caller(nil)
	wantReason(t, err, fault.CertificateUntrusted)
	for name, state := range map[string]tls.ConnectionState{
		"resumed":    {HandshakeComplete: true, DidResume: true, PeerCertificates: []*x509.Certificate{s.workloads.leaf(t, billing)}},
		"incomplete": {PeerCertificates: []*x509.Certificate{s.workloads.leaf(t, billing)}},
		"none":       {HandshakeComplete: true},
	} {
		if authn.NewEvidence(state) != nil {
			t.Errorf("%s: evidence was taken", name)
		}
	}
}

// An open connection is judged by the state of the moment, on every call.
func TestLiveState(t *testing.T) {
	s := newScene(t)
	leaf := s.workloads.leaf(t, billing)
	e := evidence(leaf)
	good := func(step string) {
		t.Helper()
		if _, err := s.Caller(e); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
	}
	good("at first")

	s.register.workloads[0].Enabled = false
	good("before the refresh")
	refresh(t, s)
	_, err := s.Caller(e)
	wantReason(t, err, fault.WorkloadDisabled)
	s.register.workloads[0].Enabled = true
	refresh(t, s)
	good("enabled again")

	s.register.revocations = []authn.Revocation{{Fingerprint: e.Fingerprint()}}
	refresh(t, s)
	_, err = s.Caller(e)
	wantReason(t, err, fault.CertificateRevoked)
	s.register.revocations = nil
	refresh(t, s)
	good("no longer revoked")

	s.register.err = errors.New("disk on fire")
	if s.Refresh(t.Context()) == nil {
		t.Fatal("a failing register was read")
	}
	good("the state before stays in force")
	s.register.err = nil

	s.clock = leaf.NotAfter.Add(time.Second)
	_, err = s.Caller(e)
	wantReason(t, err, fault.CertificateExpired)
	s.clock = leaf.NotBefore.Add(-time.Second)
	_, err = s.Caller(e)
	wantReason(t, err, fault.CertificateNotYetValid)
	s.clock = now
	good("back in time")

	other, err := authn.NewTrust(map[string][]byte{"example.org": s.stranger.pem()}, s.operators.pem())
	if err != nil {
		t.Fatal(err)
	}
	s.SetTrust(other)
	_, err = s.Caller(e)
	wantReason(t, err, fault.CertificateUntrusted)
}

func refresh(t *testing.T, s *scene) {
	t.Helper()
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestTrustIsRefused(t *testing.T) {
	s := newScene(t)
	leaf := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.workloads.leaf(t, billing).Raw})
	tests := map[string]struct {
		domains   map[string][]byte
		operators []byte
	}{
		"one authority for both":  {map[string][]byte{"example.org": s.workloads.pem()}, s.workloads.pem()},
		"empty bundle":            {map[string][]byte{"example.org": nil}, nil},
		"not an authority":        {map[string][]byte{"example.org": leaf}, nil},
		"not a trust domain name": {map[string][]byte{"Example.org": s.workloads.pem()}, nil},
		"a key among them":        {map[string][]byte{"example.org": []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")}, nil},
	}
	for name, tt := range tests {
		if _, err := authn.NewTrust(tt.domains, tt.operators); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A warm connection costs no certificate work.
func BenchmarkCaller(b *testing.B) {
	t := &testing.T{}
	s := newScene(t)
	e := evidence(s.workloads.leaf(t, billing))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Caller(e); err != nil {
			b.Fatal(err)
		}
	}
}
