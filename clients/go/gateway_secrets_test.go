package sallyport_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/gateway/development"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

const certificateRole = development.DemoSecretRole

// Every verb of secrets, against a real gateway, and every receipt in its log.
func TestEveryVerbOfSecrets(t *testing.T) {
	gw := gatewaytest.Start(t)
	ctx := t.Context()
	var receipts []string
	c := dial(t, gw.Endpoints.GRPC, filesOf(gw, gw.Endpoints.Workload), func(o *sallyport.Options) {
		o.OnReceipt = func(_ context.Context, _, r string) { receipts = append(receipts, r) }
	})
	role := c.SecretRole(certificateRole)
	var leases []sallyport.Lease
	for _, options := range [][]sallyport.LeaseOption{{sallyport.Lifetime(time.Minute)}, {sallyport.Plain()}} {
		s, err := role.Lease(ctx, options...)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Wipe()
		checkPair(t, s)
		l := s.Lease()
		if l.Workload != development.DemoWorkload || l.State != sallyport.LeaseActive || l.Revocable || l.Renewable || !l.Expires.After(time.Now()) {
			t.Errorf("%+v", l)
		}
		leases = append(leases, l)
	}
	if d := leases[0].Expires.Sub(leases[0].Created); d > time.Minute {
		t.Errorf("asked for a minute, got %v", d)
	}
	if listed, err := role.List(ctx); err != nil || len(listed) != 2 {
		t.Errorf("%v, %v", listed, err)
	}
	if _, err := role.Renew(ctx, leases[0].Name, 0); !errors.Is(err, sallyport.LeaseNotRenewable) {
		t.Errorf("renewing a certificate: %v", err)
	}
	for range 2 { // it cannot be revoked before its end, and says so
		if l, err := role.Revoke(ctx, leases[0].Name); err != nil || l.State != sallyport.LeaseRevoking {
			t.Errorf("%+v, %v", l, err)
		}
	}
	if l, err := role.Get(ctx, leases[0].Name); err != nil || l.State != sallyport.LeaseRevoking || l.Receipt == "" {
		t.Errorf("%+v, %v", l, err)
	}
	checkReceipts(t, gw, receipts, 7)
}

// checkPair checks that a secret is a certificate and its key.
func checkPair(t *testing.T, s *sallyport.Secret) {
	t.Helper()
	err := s.Use("certificate", func(certificate []byte) error {
		return s.Use("private_key", func(key []byte) error {
			pair, err := tls.X509KeyPair(certificate, key)
			if err != nil {
				return err
			}
			if pair.Leaf.NotAfter.After(s.Lease().Expires.Add(time.Second)) {
				t.Errorf("the certificate outlives its lease: %v, %v", pair.Leaf.NotAfter, s.Lease().Expires)
			}
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
	if err := s.Use("issuing_ca", func(text []byte) error {
		block, _ := pem.Decode(text)
		if block == nil {
			return errors.New("no PEM")
		}
		_, err := x509.ParseCertificate(block.Bytes)
		return err
	}); err != nil {
		t.Errorf("issuing_ca: %v", err)
	}
}

// What the real gateway refuses has the reason it should have.
func TestRefusalsOfSecrets(t *testing.T) {
	gw := gatewaytest.Start(t)
	ctx := t.Context()
	admin := control(t, gw)
	workload := dial(t, gw.Endpoints.GRPC, filesOf(gw, gw.Endpoints.Workload))
	person := dial(t, gw.Endpoints.GRPC, filesOf(gw, gw.Endpoints.Operator))
	other := dial(t, gw.Endpoints.GRPC, filesOf(gw, gw.Register("other", "spiffe://dev.sallyport/other", false)))
	stranger := dial(t, gw.Endpoints.GRPC, filesOf(gw, gw.Issue(gw.Workloads, development.Leaf{SPIFFEID: "spiffe://dev.sallyport/stranger"})))
	if _, err := admin.SecretRoles.CreateSecretRole(ctx, &controlv1.CreateSecretRoleRequest{
		Parent: "tenants/demo", SecretRoleId: "sealed", Source: development.DemoSource, SealedOnly: true, QuotaPerWorkload: 1,
		MaxLifetime: durationpb.New(time.Minute), Parameters: &controlv1.SecretParameters{
			Kind: &controlv1.SecretParameters_LocalCertificate{LocalCertificate: &controlv1.LocalCertificate{}},
		},
	}); err != nil {
		t.Fatal(err)
	}
	mine, err := workload.SecretRole(certificateRole).Lease(ctx)
	if err != nil {
		t.Fatal(err)
	}
	lease := func(c *sallyport.Client, role string, options ...sallyport.LeaseOption) error {
		s, err := c.SecretRole(role).Lease(ctx, options...)
		if s != nil && err != nil {
			t.Error("a secret with an error")
		}
		return err
	}
	const sealed = "tenants/demo/secretRoles/sealed"
	if err := lease(workload, sealed); err != nil {
		t.Fatal(err)
	}
	_, foreign := other.SecretRole(certificateRole).Revoke(ctx, mine.Lease().Name)
	_, unknown := workload.SecretRole(certificateRole).Get(ctx, certificateRole+"/leases/"+strings.Repeat("0", 32))
	_, kept := person.Keep(ctx, certificateRole, sallyport.KeepOptions{})
	for name, test := range map[string]struct {
		err  error
		want sallyport.Reason
	}{
		"a person":             {lease(person, certificateRole), sallyport.HumanOnDataPlane},
		"a person who keeps":   {kept, sallyport.HumanOnDataPlane},
		"a stranger":           {lease(stranger, certificateRole), sallyport.WorkloadNotRegistered},
		"not allowed":          {lease(other, certificateRole), sallyport.PermissionDenied},
		"an unknown role":      {lease(other, "tenants/demo/secretRoles/none"), sallyport.PermissionDenied},
		"not a role":           {lease(workload, "certificate"), sallyport.InvalidArgument},
		"too long":             {lease(workload, certificateRole, sallyport.Lifetime(2*time.Hour)), sallyport.LifetimeExceeded},
		"less than nothing":    {lease(workload, certificateRole, sallyport.Lifetime(-1)), sallyport.InvalidArgument},
		"a full quota":         {lease(workload, sealed), sallyport.QuotaExceeded},
		"plain where sealed":   {lease(workload, sealed, sallyport.Plain()), sallyport.InvalidRecipient},
		"somebody else's":      {foreign, sallyport.PermissionDenied},
		"a lease that is none": {unknown, sallyport.PermissionDenied},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%s: want %s, got %v", name, test.want, test.err)
		}
	}
}

// wait waits until something holds.
func wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 seconds: %s", what)
		}
	}
}

// A secret stays fresh through its own end, an operator who revokes it, and a restart of
// the gateway.
func TestAKeptSecretOfARealGateway(t *testing.T) {
	dir := t.TempDir()
	gw := gatewaytest.Start(t, gatewaytest.WithDir(dir))
	ctx, address := t.Context(), gw.Endpoints.GRPC
	c := dial(t, address, filesOf(gw, gw.Endpoints.Workload))
	changes := make(chan string, 100)
	k, err := c.Keep(ctx, certificateRole, sallyport.KeepOptions{
		Lifetime: 5 * time.Second, Grace: time.Second,
		OnChange: func(_ context.Context, s *sallyport.Secret) error {
			checkPair(t, s)
			changes <- s.Lease().Name
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	name := func() string {
		s, err := k.Current()
		if err != nil {
			return ""
		}
		return s.Lease().Name
	}
	first := name()
	for end := time.Now().Add(12 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if name() == "" {
			t.Fatal("a gap")
		}
	}
	if n := len(changes); n < 2 || n > 5 || name() == first {
		t.Errorf("%d changes in 12 seconds of leases of 5", n)
	}

	revoked := name()
	if _, err := control(t, gw).Leases.RevokeLeases(ctx, &controlv1.RevokeLeasesRequest{Filter: &controlv1.LeaseFilter{Role: certificateRole}}); err != nil {
		t.Fatal(err)
	}
	wait(t, "the revocation is noticed", func() bool { return name() != revoked })
	wait(t, "there is another", func() bool { return name() != "" })

	before := name()
	if err := gw.Stop(); err != nil {
		t.Fatal(err)
	}
	gatewaytest.Start(t, gatewaytest.WithDir(dir), gatewaytest.WithConfig(func(s *config.Config) { s.Listen.GRPC = address }))
	wait(t, "it goes on after a restart", func() bool { return name() != "" && name() != before })

	last := name()
	if err := k.Close(ctx); err != nil {
		t.Error(err)
	}
	if l, err := c.SecretRole(certificateRole).Get(ctx, last); err != nil || l.State == sallyport.LeaseActive {
		t.Errorf("after Close: %+v, %v", l, err)
	}
}
