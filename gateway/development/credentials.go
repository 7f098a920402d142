package development

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// Lifetimes of the certificates. Leaves are made anew at a start when less than
// half of theirs is left.
const (
	authorityLifetime = 10 * 365 * 24 * time.Hour
	leafLifetime      = 30 * 24 * time.Hour
)

// Authority is a certificate authority whose key lies beside its certificate.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// CertFile is the PEM certificate.
	CertFile string
}

// NewAuthority reads the authority DIR/NAME.pem, or makes it.
func NewAuthority(dir, name string) (*Authority, error) {
	certFile, keyFile := filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	cert, key, err := readPair(certFile, keyFile)
	if err == nil {
		return &Authority{cert, key, certFile}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Sallyport development: " + name},
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(authorityLifetime),
	}
	if name == workloadsCA {
		template.URIs = []*url.URL{{Scheme: "spiffe", Host: TrustDomain}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	if err := writePair(certFile, keyFile, der, key); err != nil {
		return nil, err
	}
	cert, err = x509.ParseCertificate(der)
	return &Authority{cert, key, certFile}, err
}

// Leaf says what a certificate is for.
type Leaf struct {
	CommonName string
	SPIFFEID   string // a workload's
	Server     bool   // for localhost
	// NotBefore and NotAfter, if set, override the lifetime.
	NotBefore, NotAfter time.Time
}

// Issue makes a certificate and its key as PEM files.
func (a *Authority) Issue(certFile, keyFile string, l Leaf) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: l.CommonName},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore:   time.Now().Add(-time.Minute), NotAfter: time.Now().Add(leafLifetime),
	}
	if !l.NotBefore.IsZero() {
		template.NotBefore = l.NotBefore
	}
	if !l.NotAfter.IsZero() {
		template.NotAfter = l.NotAfter
	}
	if l.SPIFFEID != "" {
		id, err := url.Parse(l.SPIFFEID)
		if err != nil {
			return err
		}
		template.URIs = []*url.URL{id}
	}
	if l.Server {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		template.DNSNames = []string{"localhost"}
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return err
	}
	return writePair(certFile, keyFile, der, key)
}

// ensure issues a certificate unless there is one with half its life left.
func (a *Authority) ensure(certFile, keyFile string, l Leaf) error {
	cert, _, err := readPair(certFile, keyFile)
	if err == nil && time.Until(cert.NotAfter) > leafLifetime/2 {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return a.Issue(certFile, keyFile, l)
}

func serial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

func readPair(certFile, keyFile string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certDER, err := readPEM(certFile, "CERTIFICATE")
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := readPEM(keyFile, "PRIVATE KEY")
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", certFile, err)
	}
	key, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", keyFile, err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, fmt.Errorf("%s: not an ECDSA key", keyFile)
	}
	return cert, ec, nil
}

func readPEM(path, kind string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s: no PEM block %q", path, kind)
	}
	return block.Bytes, nil
}

// writePair writes the key before the certificate, so that a certificate that is
// there always has its key.
func writePair(certFile, keyFile string, der []byte, key *ecdsa.PrivateKey) error {
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := replace(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return err
	}
	return replace(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// replace writes a file whole or not at all.
func replace(path string, data []byte, mode fs.FileMode) error {
	next := path + ".next"
	if err := os.WriteFile(next, data, mode); err != nil {
		return err
	}
	return os.Rename(next, path)
}
