package vaulttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const certificateLife = 24 * time.Hour

// Authority issues certificates.
type Authority struct {
	// PEM is its own certificate.
	PEM []byte

	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes an authority with a key of its own.
func NewAuthority(name string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	a := &Authority{key: key, certificate: template}
	der, err := a.sign(template, key)
	if err != nil {
		return nil, err
	}
	a.PEM = encode("CERTIFICATE", der)
	a.certificate, err = x509.ParseCertificate(der)
	return a, err
}

// Issue fills in a template's serial number and, if it has none, its times, and signs
// it with a new key. Both are PEM.
func (a *Authority) Issue(template *x509.Certificate) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := a.sign(template, private)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", pkcs8), nil
}

// IssueClient issues a certificate with which a client shows that it has a name.
func (a *Authority) IssueClient(name string) (certificate, key []byte, err error) {
	return a.Issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// Client is IssueClient for a tls.Config.
func (a *Authority) Client(name string) (tls.Certificate, error) {
	certificate, key, err := a.IssueClient(name)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certificate, key)
}

func (a *Authority) sign(template *x509.Certificate, key *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	if template.NotAfter.IsZero() {
		template.NotBefore = time.Now().Add(-time.Minute)
		template.NotAfter = time.Now().Add(certificateLife)
	}
	return x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// prepareTLS makes what the server needs to serve HTTPS, and returns its flags.
func (v *Vault) prepareTLS() ([]string, error) {
	server, err := NewAuthority("vaulttest server authority")
	if err != nil {
		return nil, err
	}
	if v.ClientCA, err = NewAuthority("vaulttest client authority"); err != nil {
		return nil, err
	}
	certificate, key, err := server.Issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "vaulttest server"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
	if err != nil {
		return nil, err
	}
	file := func(name string) string { return filepath.Join(v.Dir, name) }
	v.CACert = file("ca.pem")
	return []string{"--tls-cert", file("server.pem"), "--tls-key", file("server.key"), "--tls-client-ca", file("clients.pem")},
		errors.Join(
			os.WriteFile(v.CACert, server.PEM, 0o600),
			os.WriteFile(file("server.pem"), certificate, 0o600),
			os.WriteFile(file("server.key"), key, 0o600),
			os.WriteFile(file("clients.pem"), v.ClientCA.PEM, 0o600),
		)
}
