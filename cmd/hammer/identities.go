package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/cmd/hammer/internal/target"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

const (
	identityPrefix = "hammer-"
	// identityLifetime is longer than any run.
	identityLifetime = 24 * time.Hour
	// identityPolicy is the file that lets the workloads of a storm lease a role.
	identityPolicy = "hammer.cedar"
)

// identities makes workloads of a development gateway that may lease a role: hammer-000
// and on. It registers those that are not there, and gives each a new certificate.
func identities(ctx context.Context, e target.Endpoints, role string, count int) ([]target.Pair, error) {
	dir := filepath.Dir(e.CA)
	authority, err := tls.LoadX509KeyPair(filepath.Join(dir, "workload-ca.pem"), filepath.Join(dir, "workload-ca.key"))
	if err != nil {
		return nil, fmt.Errorf("only a development gateway's authority can certify workloads here: %w", err)
	}
	if len(authority.Leaf.URIs) != 1 {
		return nil, errors.New("the authority of the workloads names no trust domain")
	}
	control, err := e.DialControl(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = control.Close() }()
	if err := admit(ctx, control, role); err != nil {
		return nil, err
	}
	dir = filepath.Join(dir, "hammer")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	pairs := make([]target.Pair, count)
	for i := range pairs {
		id := fmt.Sprintf("%s%03d", identityPrefix, i)
		name := &url.URL{Scheme: "spiffe", Host: authority.Leaf.URIs[0].Host, Path: "/" + id}
		_, err := control.Workloads.RegisterWorkload(ctx, &controlv1.RegisterWorkloadRequest{WorkloadId: id, SpiffeId: name.String()})
		if err != nil && !errors.Is(err, sallyport.AlreadyExists) {
			return nil, fmt.Errorf("registering %s: %w", id, err)
		}
		pairs[i] = target.Pair{Cert: filepath.Join(dir, id+".pem"), Key: filepath.Join(dir, id+".key")}
		if err := certify(authority, name, pairs[i]); err != nil {
			return nil, err
		}
	}
	return pairs, nil
}

// admit adds the file to the policy that lets the workloads lease the role.
func admit(ctx context.Context, control *sallyport.Control, role string) error {
	now, err := control.Policy.GetPolicy(ctx, &controlv1.GetPolicyRequest{})
	if err != nil {
		return err
	}
	ours := &controlv1.PolicyFile{Name: identityPolicy, Content: fmt.Sprintf(`@id("storm")
permit (principal is Sallyport::Workload, action in Sallyport::Action::"secret", resource == Sallyport::SecretRole::%q)
when { principal.id like "%s*" };
`, role, identityPrefix)}
	files := slices.DeleteFunc(now.GetFiles(), func(f *controlv1.PolicyFile) bool { return f.GetName() == identityPolicy })
	_, err = control.Policy.LoadPolicy(ctx, &controlv1.LoadPolicyRequest{Files: append(files, ours), ExpectedRevision: now.GetRevision()})
	return err
}

// certify writes a certificate for a workload, and its key.
func certify(authority tls.Certificate, name *url.URL, files target.Pair) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	now := time.Now()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, URIs: []*url.URL{name}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(identityLifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, authority.Leaf, &key.PublicKey, authority.PrivateKey)
	if err != nil {
		return err
	}
	text, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(files.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text}), 0o600),
		os.WriteFile(files.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
	)
}
