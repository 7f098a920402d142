package vault_test

import (
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/broker/vaulttest"
	"github.com/sallyport/sallyport/gateway/fault"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

func TestAWSCredentialsAreToldToBeIrrevocable(t *testing.T) {
	t.Parallel()
	l := ownLab(t)
	check(t, vaulttest.EnableAWS(l.Vault, vaulttest.StartMoto(t)))
	r := role("aws", &controlv1.SecretParameters{Kind: &controlv1.SecretParameters_VaultAws{
		VaultAws: &controlv1.VaultAws{Mount: vaulttest.AWSMount, Role: vaulttest.AWSRole, RoleArn: vaulttest.AWSRoleARN},
	}})
	r.Renewable = true
	s := l.source(t, r)
	issued, anchor := issue(t, s, order(r, 20*time.Minute))
	if got := issued.Value.Names(); !slices.Equal(got, []string{"access_key", "secret_key", "security_token"}) {
		t.Errorf("fields %q", got)
	}
	if issued.Revocable || issued.Renewable || issued.Ref == "" {
		t.Errorf("%+v", issued)
	}
	between(t, "expires", issued.Expires, time.Now().Add(19*time.Minute), time.Now().Add(20*time.Minute))
	standing, err := s.Inspect(t.Context(), anchor)
	check(t, err)
	if !standing.Alive {
		t.Error("it is said to be gone")
	}
	_, err = s.Prepare(t.Context(), order(r, 10*time.Minute))
	wantReason(t, "less than AWS gives", err, fault.InvalidArgument)
}
