package control_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sallyport/sallyport/gateway/development"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
	"github.com/sallyport/sallyport/keys"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
)

// The verbs copy purposes and states by number.
func TestNumbersAgreeWithTheProto(t *testing.T) {
	for n, name := range controlv1.Purpose_name {
		want := strings.ToLower(strings.TrimPrefix(name, "PURPOSE_"))
		if got := keys.Purpose(n).String(); n != 0 && got != want {
			t.Errorf("purpose %d is %s in keys and %s in the proto", n, got, want)
		}
	}
	for n, name := range controlv1.VersionState_name {
		want := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, "VERSION_STATE_")), "_", "-")
		if got := keys.State(n).String(); n != 0 && got != want {
			t.Errorf("state %d is %s in keys and %s in the proto", n, got, want)
		}
	}
}

func wantReason(t *testing.T, err error, want fault.Reason) {
	t.Helper()
	f, ok := fault.FromStatus(status.Convert(err))
	if !ok || f.Reason != want {
		t.Errorf("got %v, want %v", err, want)
	}
}

type scene struct {
	*gatewaytest.Gateway
	keyrings  controlv1.KeyringServiceClient
	workloads controlv1.WorkloadServiceClient
	policy    controlv1.PolicyServiceClient
	data      datav1.DataServiceClient
}

func newScene(t *testing.T) scene {
	gw := gatewaytest.Start(t)
	c := gw.Dial(gw.Endpoints.Control, gw.Endpoints.Operator)
	return scene{
		gw, controlv1.NewKeyringServiceClient(c), controlv1.NewWorkloadServiceClient(c), controlv1.NewPolicyServiceClient(c),
		datav1.NewDataServiceClient(gw.Dial(gw.Endpoints.GRPC, gw.Endpoints.Workload)),
	}
}

func (s scene) keyring(t *testing.T, id string, p controlv1.Purpose) *controlv1.Keyring {
	t.Helper()
	k, err := s.keyrings.CreateKeyring(t.Context(), &controlv1.CreateKeyringRequest{Parent: "tenants/demo", KeyringId: id, Purpose: p})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeyringsArePagedAndFiltered(t *testing.T) {
	s := newScene(t)
	for i := range 5 {
		s.keyring(t, fmt.Sprintf("a-%d", i), controlv1.Purpose_PURPOSE_AEAD)
		s.keyring(t, fmt.Sprintf("m-%d", i), controlv1.Purpose_PURPOSE_MAC)
	}
	list := func(req *controlv1.ListKeyringsRequest) string {
		var names []string
		req.Parent = "tenants/demo"
		for {
			page, err := s.keyrings.ListKeyrings(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range page.GetKeyrings() {
				names = append(names, strings.TrimPrefix(k.GetName(), "tenants/demo/keyrings/"))
			}
			if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
				return strings.Join(names, " ")
			}
		}
	}
	if got := list(&controlv1.ListKeyringsRequest{PageSize: 3}); got != "a-0 a-1 a-2 a-3 a-4 default m-0 m-1 m-2 m-3 m-4" {
		t.Errorf("all: %s", got)
	}
	if got := list(&controlv1.ListKeyringsRequest{PageSize: 2, Purpose: controlv1.Purpose_PURPOSE_MAC}); got != "m-0 m-1 m-2 m-3 m-4" {
		t.Errorf("by purpose: %s", got)
	}
	if got := list(&controlv1.ListKeyringsRequest{PageSize: 2, Prefix: "a-"}); got != "a-0 a-1 a-2 a-3 a-4" {
		t.Errorf("by prefix: %s", got)
	}
	_, err := s.keyrings.ListKeyrings(t.Context(), &controlv1.ListKeyringsRequest{Parent: "tenants/demo", PageToken: "!"})
	wantReason(t, err, fault.InvalidArgument)
	_, err = s.keyrings.ListKeyrings(t.Context(), &controlv1.ListKeyringsRequest{Parent: "tenants/demo", PageSize: -1})
	wantReason(t, err, fault.InvalidArgument)
}

func TestRotationKeepsOldEnvelopesReadable(t *testing.T) {
	s := newScene(t)
	name := development.DemoKeyring
	sealed, err := s.data.Encrypt(t.Context(), &datav1.EncryptRequest{Name: name, Plaintext: []byte("x")})
	if err != nil || sealed.GetVersion() != 1 {
		t.Fatal(sealed, err)
	}
	ring, err := s.keyrings.RotateKeyring(t.Context(), &controlv1.RotateKeyringRequest{Name: name})
	if err != nil || ring.GetPrimaryVersion() != 2 || len(ring.GetVersions()) != 2 {
		t.Fatal(ring, err)
	}
	opened, err := s.data.Decrypt(t.Context(), &datav1.DecryptRequest{Name: name, Ciphertext: sealed.GetCiphertext()})
	if err != nil || string(opened.GetPlaintext()) != "x" || opened.GetVersion() != 1 {
		t.Fatal(opened, err)
	}
	moved, err := s.data.Rewrap(t.Context(), &datav1.RewrapRequest{Name: name, Ciphertext: sealed.GetCiphertext()})
	if err != nil || moved.GetVersion() != 2 || moved.GetPreviousVersion() != 1 {
		t.Fatal(moved, err)
	}

	// A disabled version stops on the next call, and comes back.
	set := func(v uint32, to controlv1.VersionState) error {
		_, err := s.keyrings.SetVersionState(t.Context(), &controlv1.SetVersionStateRequest{Name: name, Version: v, State: to})
		return err
	}
	if err := set(1, controlv1.VersionState_VERSION_STATE_DISABLED); err != nil {
		t.Fatal(err)
	}
	_, err = s.data.Decrypt(t.Context(), &datav1.DecryptRequest{Name: name, Ciphertext: sealed.GetCiphertext()})
	wantReason(t, err, fault.VersionUnavailable)
	if _, err := s.data.Decrypt(t.Context(), &datav1.DecryptRequest{Name: name, Ciphertext: moved.GetCiphertext()}); err != nil {
		t.Errorf("the rewrapped envelope: %v", err)
	}
	if err := set(1, controlv1.VersionState_VERSION_STATE_ENABLED); err != nil {
		t.Fatal(err)
	}
	if _, err := s.data.Decrypt(t.Context(), &datav1.DecryptRequest{Name: name, Ciphertext: sealed.GetCiphertext()}); err != nil {
		t.Errorf("enabled again: %v", err)
	}
	wantReason(t, set(2, controlv1.VersionState_VERSION_STATE_DISABLED), fault.FailedPrecondition)
	wantReason(t, set(9, controlv1.VersionState_VERSION_STATE_DISABLED), fault.NotFound)
	wantReason(t, set(1, controlv1.VersionState_VERSION_STATE_DESTROYED), fault.FailedPrecondition)
}

func TestChangesAreCompareAndSwap(t *testing.T) {
	s := newScene(t)
	k := s.keyring(t, "cas", controlv1.Purpose_PURPOSE_AEAD)
	if _, err := s.keyrings.RotateKeyring(t.Context(), &controlv1.RotateKeyringRequest{Name: k.GetName(), Etag: k.GetEtag()}); err != nil {
		t.Fatal(err)
	}
	_, err := s.keyrings.RotateKeyring(t.Context(), &controlv1.RotateKeyringRequest{Name: k.GetName(), Etag: k.GetEtag()})
	wantReason(t, err, fault.Conflict)
	_, err = s.keyrings.RotateKeyring(t.Context(), &controlv1.RotateKeyringRequest{Name: k.GetName(), Etag: "01"})
	wantReason(t, err, fault.InvalidArgument)

	p, err := s.policy.GetPolicy(t.Context(), &controlv1.GetPolicyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	load := &controlv1.LoadPolicyRequest{Files: p.GetFiles(), ExpectedRevision: p.GetRevision()}
	if _, err := s.policy.LoadPolicy(t.Context(), load); err != nil {
		t.Fatal(err)
	}
	_, err = s.policy.LoadPolicy(t.Context(), load)
	wantReason(t, err, fault.Conflict)
}

func TestBadPolicyLeavesTheOldInForce(t *testing.T) {
	s := newScene(t)
	bad := []*controlv1.PolicyFile{{Name: "bad.cedar", Content: `@id("x") permit (principal is Sallyport::Wrkload, action, resource);`}}
	_, err := s.policy.LoadPolicy(t.Context(), &controlv1.LoadPolicyRequest{Files: bad})
	wantReason(t, err, fault.InvalidPolicy)
	if !strings.Contains(err.Error(), "bad.cedar:1") {
		t.Errorf("the problem has no place: %v", err)
	}
	if _, err := s.data.Encrypt(t.Context(), &datav1.EncryptRequest{Name: development.DemoKeyring}); err != nil {
		t.Errorf("after a bad load: %v", err)
	}
	// An empty policy is a policy: it denies, from the next call on.
	if _, err := s.policy.LoadPolicy(t.Context(), &controlv1.LoadPolicyRequest{Files: []*controlv1.PolicyFile{{
		Name: "only.cedar", Content: `@id("operators") permit (principal is Sallyport::Operator, action in Sallyport::Action::"control", resource);`,
	}}}); err != nil {
		t.Fatal(err)
	}
	_, err = s.data.Encrypt(t.Context(), &datav1.EncryptRequest{Name: development.DemoKeyring})
	wantReason(t, err, fault.PermissionDenied)
}

func TestControlRefusals(t *testing.T) {
	s := newScene(t)
	create := func(parent, id string, p controlv1.Purpose, rotation time.Duration) error {
		_, err := s.keyrings.CreateKeyring(t.Context(), &controlv1.CreateKeyringRequest{
			Parent: parent, KeyringId: id, Purpose: p, RotationPeriod: durationpb.New(rotation),
		})
		return err
	}
	register := func(id, spiffeID string) error {
		_, err := s.workloads.RegisterWorkload(t.Context(), &controlv1.RegisterWorkloadRequest{WorkloadId: id, SpiffeId: spiffeID})
		return err
	}
	const aead, domain = controlv1.Purpose_PURPOSE_AEAD, "spiffe://" + development.TrustDomain
	wantReason(t, create("tenants/nobody", "k", aead, 0), fault.NotFound)
	wantReason(t, create("tenants/demo", "default", aead, 0), fault.AlreadyExists)
	wantReason(t, create("tenants/demo", "K", aead, 0), fault.InvalidArgument)
	wantReason(t, create("tenants/demo", "k", 0, 0), fault.InvalidArgument)
	wantReason(t, create("tenants/demo", "k", aead, time.Minute), fault.InvalidArgument)
	wantReason(t, create("demo", "k", aead, 0), fault.InvalidArgument)
	wantReason(t, register("demo", domain+"/other"), fault.AlreadyExists)
	wantReason(t, register("other", development.DemoWorkload), fault.AlreadyExists)
	wantReason(t, register("other", "spiffe://elsewhere.example/x"), fault.InvalidArgument)
	wantReason(t, register("other", domain), fault.InvalidArgument)
	wantReason(t, register("Other", domain+"/x"), fault.InvalidArgument)
	_, err := s.keyrings.GetKeyring(t.Context(), &controlv1.GetKeyringRequest{Name: "tenants/demo/keyrings/nope"})
	wantReason(t, err, fault.NotFound)
	_, err = s.workloads.DisableWorkload(t.Context(), &controlv1.DisableWorkloadRequest{Name: "workloads/nope"})
	wantReason(t, err, fault.NotFound)
	_, err = s.workloads.RevokeCertificate(t.Context(), &controlv1.RevokeCertificateRequest{Sha256Fingerprint: "abc"})
	wantReason(t, err, fault.InvalidArgument)
	_, err = s.keyrings.CreateTenant(t.Context(), &controlv1.CreateTenantRequest{TenantId: "demo"})
	wantReason(t, err, fault.AlreadyExists)
}
