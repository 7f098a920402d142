package localca_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/broker/localca"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/gateway/lease/leasetest"
	"github.com/sallyport/sallyport/keys"
	"github.com/sallyport/sallyport/keys/kms/kmstest"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// world is an authority, its file and the hands of its clock.
type world struct {
	*localca.Source
	path string
	kek  *kmstest.Fake
	now  time.Time
}

func (w *world) config() localca.Config {
	return localca.Config{
		File: w.path, KEKs: []keys.KEK{kmstest.NewFake("other"), w.kek}, Deployment: "here", Environment: "test",
		Now: func() time.Time { return w.now },
	}
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{path: filepath.Join(t.TempDir(), "ca.pem"), kek: kmstest.NewFake("one"), now: time.Now()}
	if err := localca.Create(t.Context(), w.path, w.kek, "here", "test", w.now); err != nil {
		t.Fatal(err)
	}
	s, err := localca.Open(t.Context(), w.config())
	if err != nil {
		t.Fatal(err)
	}
	w.Source = s
	return w
}

func certificate(c *controlv1.LocalCertificate) *controlv1.SecretParameters {
	return &controlv1.SecretParameters{Kind: &controlv1.SecretParameters_LocalCertificate{LocalCertificate: c}}
}

// order is for a lease of one hour, with an id that has its top bit set.
func (w *world) order() lease.Order {
	name := lease.Name{Role: lease.RoleName{Tenant: "acme", Role: "orders"}, ID: lease.ID{0xfe, 1, 2, 3, 15: 9}}
	return lease.Order{
		Lease: name, Workload: "spiffe://example.org/orders", Registration: "orders-service",
		Role:     lease.Role{Name: name.Role, Source: "local", Parameters: certificate(&controlv1.LocalCertificate{})},
		Lifetime: time.Hour, MaxLifetime: time.Hour, Now: w.now,
	}
}

// issued is a credential, read.
type issued struct {
	lease.Issued
	anchor lease.Anchor
	pair   tls.Certificate
	leaf   *x509.Certificate
	ca     *x509.Certificate
	fields map[string]string
}

func (w *world) issue(t testing.TB, o lease.Order) issued {
	t.Helper()
	ticket, err := w.Prepare(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ticket.Issue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := issued{Issued: got, anchor: ticket.Anchor(), fields: map[string]string{}}
	i.anchor.Ref = got.Ref
	for _, f := range got.Value {
		_ = f.Value.Use(func(b []byte) error { i.fields[f.Name] = string(b); return nil })
	}
	i.pair, err = tls.X509KeyPair([]byte(i.fields["certificate"]), []byte(i.fields["private_key"]))
	if err != nil {
		t.Fatal(err)
	}
	i.leaf = i.pair.Leaf
	block, rest := pem.Decode([]byte(i.fields["issuing_ca"]))
	if block == nil || len(rest) > 0 {
		t.Fatal("issuing_ca is not one certificate")
	}
	if i.ca, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	return i
}

func TestTheSourceKeepsThePromisesOfSources(t *testing.T) {
	w := newWorld(t)
	s, err := localca.Open(t.Context(), localca.Config{
		File: w.path, KEKs: []keys.KEK{w.kek}, Deployment: "here", Environment: "test", Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	role := w.order().Role
	role.MaxLifetime, role.Renewable = 24*time.Hour, true
	leasetest.Source(t, leasetest.Lab{
		Source: s, Role: role, Fields: []string{"certificate", "issuing_ca", "private_key", "serial_number"},
		Works: func(v lease.Value) bool { return worksFor(t, v) },
	})
}

// worksFor asks a TLS server that trusts the authority whether it admits a client.
func worksFor(t *testing.T, v lease.Value) bool {
	fields := map[string][]byte{}
	for _, f := range v {
		_ = f.Value.Use(func(b []byte) error { fields[f.Name] = slices.Clone(b); return nil })
	}
	pair, err := tls.X509KeyPair(fields["certificate"], fields["private_key"])
	if err != nil {
		t.Error(err)
		return false
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(fields["issuing_ca"])
	_, err = handshake(t, pair, pool)
	return err == nil
}

// handshake makes a TLS connection to a server that demands a client certificate of
// the pool, and gives what the server says of the client.
func handshake(t *testing.T, client tls.Certificate, pool *x509.CertPool) (*x509.Certificate, error) {
	t.Helper()
	server := serverCertificate(t)
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	go func() {
		conn := tls.Client(here, &tls.Config{Certificates: []tls.Certificate{client}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
		_ = conn.HandshakeContext(t.Context())
		_, _ = conn.Read(make([]byte, 1))
	}()
	conn := tls.Server(there, &tls.Config{
		Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS13,
	})
	if err := conn.HandshakeContext(t.Context()); err != nil {
		return nil, err
	}
	return conn.ConnectionState().PeerCertificates[0], nil
}

// serverCertificate is some server's; clients of these tests trust it blindly.
func serverCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	w := newWorld(t)
	return w.issue(t, w.order()).pair
}

func TestACertificateIsForClientsAndNothingElse(t *testing.T) {
	w := newWorld(t)
	o := w.order()
	o.Role.Parameters = certificate(&controlv1.LocalCertificate{DnsNames: []string{"orders.example.org", "orders"}})
	i := w.issue(t, o)
	pool := x509.NewCertPool()
	pool.AddCert(i.ca)
	for usage, good := range map[x509.ExtKeyUsage]bool{
		x509.ExtKeyUsageClientAuth: true, x509.ExtKeyUsageServerAuth: false,
		x509.ExtKeyUsageCodeSigning: false, x509.ExtKeyUsageEmailProtection: false,
	} {
		_, err := i.leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{usage}, CurrentTime: w.now})
		if (err == nil) != good {
			t.Errorf("usage %v: %v", usage, err)
		}
	}
	l := i.leaf
	if l.IsCA || !l.BasicConstraintsValid || l.KeyUsage != x509.KeyUsageDigitalSignature || len(l.ExtKeyUsage) != 1 {
		t.Errorf("ca %v, usage %v, %v", l.IsCA, l.KeyUsage, l.ExtKeyUsage)
	}
	if len(l.URIs) > 0 || len(l.EmailAddresses) > 0 || len(l.IPAddresses) > 0 || !slices.Equal(l.DNSNames, []string{"orders.example.org", "orders"}) {
		t.Errorf("names %v %v %v %v", l.URIs, l.EmailAddresses, l.IPAddresses, l.DNSNames)
	}
	if got := l.Subject.String(); got != "CN=orders-service,OU=orders,O=acme" {
		t.Errorf("subject %s", got)
	}
	if string(l.AuthorityKeyId) != string(i.ca.SubjectKeyId) || len(l.AuthorityKeyId) == 0 {
		t.Error("the certificate does not name its authority's key")
	}
	serial := o.Lease.ID.String()
	if l.SerialNumber.Text(16) != serial || i.fields["serial_number"] != serial || l.SerialNumber.Sign() <= 0 || i.Ref != serial {
		t.Errorf("serial %x", l.SerialNumber)
	}
	if l.SignatureAlgorithm != x509.ECDSAWithSHA256 || i.Renewable || i.Revocable || i.Version != 0 {
		t.Errorf("%v, %+v", l.SignatureAlgorithm, i.Issued)
	}
	order := make([]string, len(i.Value))
	for n, f := range i.Value {
		order[n] = f.Name
	}
	if !slices.Equal(order, []string{"certificate", "private_key", "issuing_ca", "serial_number"}) {
		t.Errorf("fields %v", order)
	}
}

func TestTheAuthoritySignsNothingButLeaves(t *testing.T) {
	w := newWorld(t)
	ca := w.issue(t, w.order()).ca
	if !ca.IsCA || ca.MaxPathLen != 0 || !ca.MaxPathLenZero || ca.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("ca %v, path %d, usage %v", ca.IsCA, ca.MaxPathLen, ca.KeyUsage)
	}
	if years := ca.NotAfter.Sub(w.now).Hours() / 24 / 365; years < 10 || years > 10.1 {
		t.Errorf("it lives %v years", years)
	}
}

func TestServersAdmitTheCertificatesOfTheirAuthorityOnly(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	i, foreign := w.issue(t, w.order()), other.issue(t, other.order())
	pool := x509.NewCertPool()
	pool.AddCert(i.ca)
	seen, err := handshake(t, i.pair, pool)
	if err != nil || !seen.Equal(i.leaf) {
		t.Errorf("not admitted: %v", err)
	}
	if _, err := handshake(t, foreign.pair, pool); err == nil {
		t.Error("another authority's certificate is admitted")
	}
}

func TestLifetimesAreBounded(t *testing.T) {
	w := newWorld(t)
	w.now = w.now.Truncate(time.Second).Add(900 * time.Millisecond)
	whole := w.now.Truncate(time.Second)
	for name, c := range map[string]struct {
		lifetime, max time.Duration
		at            time.Time
		want          time.Time
	}{
		"an hour":                   {time.Hour, time.Hour, w.now, whole.Add(time.Hour)},
		"a second":                  {time.Second, time.Second, w.now, whole.Add(time.Second)},
		"a part of a second":        {2500 * time.Millisecond, time.Minute, w.now, whole.Add(3 * time.Second)},
		"more than the maximum":     {time.Hour, time.Minute, w.now, whole.Add(time.Minute)},
		"more than a day":           {48 * time.Hour, 90 * 24 * time.Hour, w.now, whole.Add(24 * time.Hour)},
		"more than the authority's": {time.Hour, time.Hour, whole.AddDate(10, 0, 0).Add(-time.Minute), whole.AddDate(10, 0, 0)},
	} {
		o := w.order()
		o.Lifetime, o.MaxLifetime, o.Now = c.lifetime, c.max, c.at
		i := w.issue(t, o)
		if !i.Expires.Equal(c.want) || !i.leaf.NotAfter.Equal(c.want) {
			t.Errorf("%s: until %v, not after %v, want %v", name, i.Expires, i.leaf.NotAfter, c.want)
		}
		if want := c.at.Add(-time.Minute).Truncate(time.Second); !i.leaf.NotBefore.Equal(want) {
			t.Errorf("%s: from %v, want %v", name, i.leaf.NotBefore, want)
		}
	}
	for _, lifetime := range []time.Duration{0, -time.Hour, time.Second - 1} {
		o := w.order()
		o.Lifetime = lifetime
		if _, err := w.Prepare(t.Context(), o); !errors.Is(err, fault.New(fault.InvalidArgument, "")) {
			t.Errorf("a lifetime of %v: %v", lifetime, err)
		}
	}
}

func TestNothingIsIssuedOutsideTheAuthoritysTime(t *testing.T) {
	w := newWorld(t)
	for name, at := range map[string]time.Time{"before": w.now.Add(-2 * time.Hour), "after": w.now.AddDate(10, 0, 1)} {
		w.now = at
		refused := fault.New(fault.SourceRefused, "")
		if err := w.Failure(); !errors.Is(err, refused) {
			t.Errorf("%s: no failure: %v", name, err)
		}
		if _, err := w.Prepare(t.Context(), w.order()); !errors.Is(err, refused) {
			t.Errorf("%s: prepared: %v", name, err)
		}
	}
}

// Nobody can end a certificate early, so its end is confirmed when every verifier
// refuses it, and not a moment before.
func TestOnlyTimeEndsACertificate(t *testing.T) {
	w := newWorld(t)
	i := w.issue(t, w.order())
	reopened, err := localca.Open(t.Context(), w.config())
	if err != nil {
		t.Fatal(err)
	}
	end := i.Expires
	for _, c := range []struct {
		at    time.Time
		alive bool
	}{
		{w.now, true},
		{end.Add(-time.Second), true},
		{end, true},
		{end.Add(999 * time.Millisecond), true}, // of the last valid second
		{end.Add(time.Second), false},
		{end.AddDate(1, 0, 0), false},
	} {
		w.now = c.at
		for name, a := range map[string]lease.Anchor{"whole": i.anchor, "the handle alone": {Handle: i.anchor.Handle}} {
			for _, s := range []*localca.Source{w.Source, reopened} {
				standing, err := s.Inspect(t.Context(), a)
				if err != nil || standing.Alive != c.alive || !standing.Until.Equal(end) {
					t.Errorf("%v, %s: %+v, %v", c.at.Sub(end), name, standing, err)
				}
				err = s.Revoke(t.Context(), a)
				if c.alive && !errors.Is(err, fault.New(fault.SourceRefused, "")) || !c.alive && err != nil {
					t.Errorf("%v, %s: revoked: %v", c.at.Sub(end), name, err)
				}
			}
		}
	}
}

func TestOtherAnchorsAreNeverConfirmed(t *testing.T) {
	w := newWorld(t)
	id := strings.Repeat("0a", 16)
	for _, handle := range []string{
		"", "/", id, id + "/", "/1", id + "/x", id + "/1 ", id + "/+1", id + "/01", id + "/0x1", id + "/1/1", id + "/1\n",
		strings.ToUpper(id) + "/1", id[:30] + "/1", id + "0a/1", id + "/99999999999999999999", "hvs.CAESIaccessor",
	} {
		a := lease.Anchor{Handle: handle, Ref: id}
		if err := w.Revoke(t.Context(), a); !errors.Is(err, fault.New(fault.SourceRefused, "")) {
			t.Errorf("%q: its end is confirmed: %v", handle, err)
		}
		if s, err := w.Inspect(t.Context(), a); !errors.Is(err, fault.New(fault.SourceRefused, "")) || s.Alive {
			t.Errorf("%q: %+v, %v", handle, s, err)
		}
	}
	if err := w.Revoke(t.Context(), lease.Anchor{Handle: id + "/1"}); err != nil {
		t.Errorf("the end of what ended in 1970: %v", err)
	}
}

func TestNothingPrintsTheKeys(t *testing.T) {
	w := newWorld(t)
	i := w.issue(t, w.order())
	asJSON, _ := json.Marshal(map[string]any{"source": w.Source})
	text := fmt.Sprintf("%v %+v %#v %v %+v %#v %s", w.Source, w.Source, *w.Source, i.Issued, i.Issued, i.Value, asJSON)
	if strings.Contains(text, "PRIVATE") || strings.Contains(text, i.fields["private_key"][40:80]) {
		t.Errorf("a key is printed")
	}
	content, err := os.ReadFile(w.path)
	if err != nil || strings.Contains(string(content), "PRIVATE KEY") {
		t.Errorf("the authority's file: %v", err)
	}
}

func BenchmarkIssue(b *testing.B) {
	w := newWorld(b)
	o := w.order()
	for b.Loop() {
		ticket, err := w.Prepare(b.Context(), o)
		if err != nil {
			b.Fatal(err)
		}
		got, err := ticket.Issue(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		got.Value.Wipe()
	}
}
