package floor

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
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/sallyport/sallyport/cmd/hammer/internal/target"
)

// lifetime is how long a floor's certificates are good for: longer than any run.
const lifetime = 24 * time.Hour

// authority makes the certificates of one run.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority makes what a floor and its caller prove themselves with: the server's
// side as a TLS configuration, the caller's as files in dir. The kinds of keys and
// certificates are those of sallyport-dev, so that handshakes cost the same.
func newAuthority(dir string) (*tls.Config, target.Endpoints, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, target.Endpoints{}, err
	}
	a := authority{key: key}
	a.cert, err = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "hammer floor CA"}, KeyUsage: x509.KeyUsageCertSign,
		IsCA: true, BasicConstraintsValid: true,
	}, &key.PublicKey)
	if err != nil {
		return nil, target.Endpoints{}, err
	}
	server, err := a.leaf(&x509.Certificate{
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return nil, target.Endpoints{}, err
	}
	workload, err := a.leaf(&x509.Certificate{
		URIs:        []*url.URL{{Scheme: "spiffe", Host: "floor.example", Path: "/workload"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, target.Endpoints{}, err
	}
	endpoints, err := a.write(dir, workload)
	if err != nil {
		return nil, target.Endpoints{}, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{server},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}, endpoints, nil
}

// sign completes a template and signs it, by itself while there is no authority.
func (a authority) sign(template *x509.Certificate, public *ecdsa.PublicKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Minute)
	template.NotAfter = template.NotBefore.Add(lifetime)
	parent := a.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, a.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func (a authority) leaf(template *x509.Certificate) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	cert, err := a.sign(template, &key.PublicKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}, nil
}

// write puts the CA's certificate, and the caller's with its key, into dir.
func (a authority) write(dir string, workload tls.Certificate) (target.Endpoints, error) {
	e := target.Endpoints{
		CA: filepath.Join(dir, "ca.pem"),
		Workload: target.Pair{
			Cert: filepath.Join(dir, "workload.pem"), Key: filepath.Join(dir, "workload.key"),
		},
	}
	key, err := x509.MarshalPKCS8PrivateKey(workload.PrivateKey)
	if err != nil {
		return e, err
	}
	return e, errors.Join(
		writePEM(e.CA, "CERTIFICATE", a.cert.Raw),
		writePEM(e.Workload.Cert, "CERTIFICATE", workload.Leaf.Raw),
		writePEM(e.Workload.Key, "PRIVATE KEY", key),
	)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
