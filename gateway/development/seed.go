package development

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// seedTimeout bounds the making of the demo tenant.
const seedTimeout = 10 * time.Second

// seed makes the tenant demo, its keyring and its workload through the front door:
// as the operator, over the control listener, on record.
func (g *Gateway) seed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, seedTimeout)
	defer cancel()
	conn, err := Dial(g.Endpoints.Control, g.Endpoints.CA, g.Endpoints.Operator)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	keyrings, workloads := controlv1.NewKeyringServiceClient(conn), controlv1.NewWorkloadServiceClient(conn)

	// The workload is made last, so that its being there shows that all is.
	list, err := workloads.ListWorkloads(ctx, &controlv1.ListWorkloadsRequest{PageSize: 1})
	if err != nil {
		return fmt.Errorf("making the demo tenant: %w", err)
	}
	if len(list.GetWorkloads()) > 0 {
		return nil
	}
	_, err = keyrings.CreateTenant(ctx, &controlv1.CreateTenantRequest{TenantId: "demo"})
	if err != nil && status.Code(err) != codes.AlreadyExists {
		return fmt.Errorf("making the demo tenant: %w", err)
	}
	_, err = keyrings.CreateKeyring(ctx, &controlv1.CreateKeyringRequest{
		Parent: "tenants/demo", KeyringId: "default", Purpose: controlv1.Purpose_PURPOSE_AEAD,
	})
	if err != nil && status.Code(err) != codes.AlreadyExists {
		return fmt.Errorf("making the demo keyring: %w", err)
	}
	_, err = controlv1.NewSecretRoleServiceClient(conn).CreateSecretRole(ctx, &controlv1.CreateSecretRoleRequest{
		Parent: "tenants/demo", SecretRoleId: "certificate", Source: DemoSource, MaxLifetime: durationpb.New(time.Hour),
		Parameters: &controlv1.SecretParameters{
			Kind: &controlv1.SecretParameters_LocalCertificate{LocalCertificate: &controlv1.LocalCertificate{}},
		},
	})
	if err != nil && status.Code(err) != codes.AlreadyExists {
		return fmt.Errorf("making the demo secret role: %w", err)
	}
	_, err = workloads.RegisterWorkload(ctx, &controlv1.RegisterWorkloadRequest{WorkloadId: "demo", SpiffeId: DemoWorkload})
	if err != nil && status.Code(err) != codes.AlreadyExists {
		return fmt.Errorf("registering the demo workload: %w", err)
	}
	return nil
}

// Dial connects to a development gateway over gRPC with a certificate of its own.
func Dial(address, caFile string, p Pair) (*grpc.ClientConn, error) {
	config, err := ClientTLS(caFile, p)
	if err != nil {
		return nil, err
	}
	return grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
}

// ClientTLS is the TLS configuration of a client of a development gateway.
func ClientTLS(caFile string, p Pair) (*tls.Config, error) {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("development: no certificate in " + caFile)
	}
	cert, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{cert}, ServerName: "localhost"}, nil
}
