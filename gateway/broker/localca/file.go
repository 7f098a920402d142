package localca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/sallyport/sallyport/crypto/envelope"
	"github.com/sallyport/sallyport/crypto/secret"
	"github.com/sallyport/sallyport/keys"
)

// The errors of Create and Open, beside those of KEKs and the file system.
var (
	// ErrFormat: not the file of an authority, cut short, or altered.
	ErrFormat = errors.New("localca: not a readable authority")
	// ErrForeign: the authority is of another deployment or environment.
	ErrForeign = errors.New("localca: the authority is of another deployment or environment")
	// ErrUnknownKEK: the authority's key is wrapped by a KEK that is not configured.
	ErrUnknownKEK = errors.New("localca: the authority's key is wrapped by a KEK that is not configured")
)

const (
	// years is how long an authority lives, and clockSkew how far behind the gateway's
	// clock a verifier's may be when it is fresh.
	years     = 10
	clockSkew = time.Hour
	// kekTimeout bounds the one call of the KEK.
	kekTimeout = 15 * time.Second
	// maxFile is far above the size of any authority's file.
	maxFile = 64 << 10

	blockWrapped = "SALLYPORT WRAPPED KEY"

	headerID          = "Authority"
	headerKEK         = "KEK"
	headerDeployment  = "Deployment"
	headerEnvironment = "Environment"
)

// authorityTenant stands where a keyset's binding has its tenant. It is no tenant's
// id, so that no keyring can be bound alike.
const authorityTenant keys.Tenant = "_authority"

// file is the content of an authority's file: the certificate in PEM, and after it the
// private key in PKCS #8 under the KEK, in a PEM block of ours. Its headers say what
// the KEK binds the key to, besides the purpose.
type file struct {
	certificate *x509.Certificate
	id          envelope.KeyringID // 128 bits, random
	kek         string             // the URI
	deployment  string
	environment string
	wrapped     []byte
}

// binding is what the private key is bound to.
func (f *file) binding() keys.Binding {
	return keys.Binding{
		Deployment: f.deployment, Environment: f.environment, Tenant: authorityTenant,
		Keyring: f.id, Version: 1, Purpose: keys.PurposeSigning,
	}
}

// Create makes an authority for ten years from now, with its key wrapped by kek, and
// writes it to path, durably. It never replaces a file: the error is then
// fs.ErrExist. A crash leaves the whole file or none, and perhaps a stray one beside
// it that nobody reads.
func Create(ctx context.Context, path string, kek keys.KEK, deployment, environment string, now time.Time) error {
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	f, err := newAuthority(ctx, kek, deployment, environment, now)
	if err != nil {
		return err
	}
	content := f.encode()
	if _, err := parseFile(content); err != nil {
		return fmt.Errorf("the names of the deployment, the environment or the KEK do not fit into a file: %w", err)
	}
	stray, err := stage(path, content)
	if err != nil {
		return err
	}
	return publish(stray, path)
}

func newAuthority(ctx context.Context, kek keys.KEK, deployment, environment string, now time.Time) (*file, error) {
	f := &file{kek: kek.URI(), deployment: deployment, environment: environment}
	_, _ = rand.Read(f.id[:]) // never fails (crypto/rand)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(f.id[:]),
		Subject:               pkix.Name{CommonName: "Sallyport local authority " + hex.EncodeToString(f.id[:4])},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.AddDate(years, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SignatureAlgorithm:    x509.ECDSAWithSHA256,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	if f.certificate, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	defer secret.Wipe(private)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, kekTimeout)
	defer cancel()
	f.wrapped, err = kek.Wrap(ctx, private, f.binding())
	return f, err
}

// encode gives the file's content.
func (f *file) encode() []byte {
	return append(
		pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: f.certificate.Raw}),
		pem.EncodeToMemory(&pem.Block{Type: blockWrapped, Bytes: f.wrapped, Headers: map[string]string{
			headerID: hex.EncodeToString(f.id[:]), headerKEK: f.kek,
			headerDeployment: f.deployment, headerEnvironment: f.environment,
		}})...)
}

// stage writes the content beside path and makes it durable there.
func stage(path string, content []byte) (stray string, err error) {
	t, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return "", err
	}
	defer func() {
		if err = errors.Join(err, t.Close()); err != nil {
			err = errors.Join(err, os.Remove(t.Name()))
		}
	}()
	if _, err := t.Write(content); err != nil {
		return "", err
	}
	return t.Name(), t.Sync()
}

// publish gives the staged file its name. A link is made and not a renaming, because
// that would replace a file that came into being meanwhile.
func publish(stray, path string) error {
	if err := errors.Join(os.Link(stray, path), os.Remove(stray)); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func readFile(path string) (*file, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if info, err := r.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%w: not a regular file", ErrFormat))
	}
	content, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, err
	}
	return parseFile(content)
}

// parseFile parses what encode writes; the error wraps ErrFormat.
func parseFile(content []byte) (*file, error) {
	bad := func(detail string) (*file, error) { return nil, fmt.Errorf("%w: %s", ErrFormat, detail) }
	if len(content) > maxFile {
		return bad("too large")
	}
	first, rest := pem.Decode(content)
	if first == nil || first.Type != blockCertificate {
		return bad("it does not begin with a certificate")
	}
	second, rest := pem.Decode(rest)
	if second == nil || second.Type != blockWrapped || len(rest) > 0 {
		return bad("the certificate is not followed by one wrapped key")
	}
	id, err := parseSerial(second.Headers[headerID])
	if err != nil {
		return bad("the wrapped key has no id")
	}
	f := &file{
		id: envelope.KeyringID(id), kek: second.Headers[headerKEK], wrapped: second.Bytes,
		deployment: second.Headers[headerDeployment], environment: second.Headers[headerEnvironment],
	}
	if f.certificate, err = x509.ParseCertificate(first.Bytes); err != nil {
		return bad("the certificate does not parse")
	}
	c := f.certificate
	if !c.IsCA || c.CheckSignatureFrom(c) != nil {
		return bad("the certificate is not an authority's that signed itself")
	}
	// One form only: what is not read, nobody should believe to matter.
	if string(f.encode()) != string(content) {
		return bad("there is more in it than an authority")
	}
	return f, nil
}

// unwrap gives the private key. The certificate is what the key signed, so that nobody
// can exchange one without the other.
func (f *file) unwrap(ctx context.Context, c Config) (*ecdsa.PrivateKey, error) {
	if f.deployment != c.Deployment || f.environment != c.Environment {
		return nil, fmt.Errorf("%w: %q, %q", ErrForeign, f.deployment, f.environment)
	}
	var kek keys.KEK
	for _, k := range c.KEKs {
		if k.URI() == f.kek {
			kek = k
		}
	}
	if kek == nil {
		return nil, fmt.Errorf("%w: %q", ErrUnknownKEK, f.kek)
	}
	ctx, cancel := context.WithTimeout(ctx, kekTimeout)
	defer cancel()
	private, err := kek.Unwrap(ctx, f.wrapped, f.binding())
	defer secret.Wipe(private)
	if err != nil {
		return nil, fmt.Errorf("localca: unwrapping the authority's key: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("%w: the private key does not parse", ErrFormat) // the cause could show it
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(f.certificate.PublicKey) {
		return nil, fmt.Errorf("%w: the private key is not the certificate's", ErrFormat)
	}
	return key, nil
}
