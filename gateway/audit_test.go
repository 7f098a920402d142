package gateway_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/tlog"
	"github.com/sallyport/sallyport/gateway/development"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// Every call that is answered has its record: an admitted one, and one that is
// refused to a caller we know. The answer carries the receipt, which proves the
// record.
func TestEveryAnswerHasItsRecord(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	nobody := gw.Issue(gw.Workloads, development.Leaf{SPIFFEID: "spiffe://" + development.TrustDomain + "/nobody"})
	before := len(records(t, gw))
	type call struct {
		as      development.Pair
		caller  string
		reason  fault.Reason
		keyring string
		kind    auditv1.CallerKind
	}
	const none = "tenants/demo/keyrings/none"
	calls := []call{
		{gw.Endpoints.Workload, development.DemoWorkload, admitted, development.DemoKeyring, auditv1.CallerKind_CALLER_KIND_WORKLOAD},
		{gw.Endpoints.Workload, development.DemoWorkload, fault.PermissionDenied, none, auditv1.CallerKind_CALLER_KIND_WORKLOAD},
		{gw.Endpoints.Operator, "operators/dev-operator", fault.HumanOnDataPlane, development.DemoKeyring, auditv1.CallerKind_CALLER_KIND_HUMAN},
		{nobody, "", fault.WorkloadNotRegistered, "", auditv1.CallerKind_CALLER_KIND_UNKNOWN},
	}
	answered := 0
	for _, c := range calls {
		for protocol, ask := range doors(t, gw, c.as) {
			keyring := c.keyring
			if keyring == "" {
				keyring = development.DemoKeyring
			}
			a := ask.refused(t, encrypt("x", here).in(keyring), c.reason)
			answered++
			r := recordOf(t, gw, a.receipt)
			reason := ""
			if c.reason != admitted {
				reason = c.reason.String()
			}
			if r.GetCaller() != c.caller || r.GetReason() != reason || r.GetResource() != c.keyring || r.GetCallerKind() != c.kind ||
				r.GetAction() != "sallyport.data.v1.DataService.Encrypt" || r.GetPhase() != auditv1.Phase_PHASE_CALL {
				t.Errorf("%s: %v is recorded as %v", protocol, c.reason, r)
			}
		}
	}
	if got := len(records(t, gw)) - before; got != answered {
		t.Errorf("%d records of %d calls", got, answered)
	}
}

// Strangers get no receipt, and cannot fill the log: their calls are counted
// together.
func TestStrangersAreCountedTogether(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	expired := matrixCallers(t, gw)["expired"]
	before := len(records(t, gw))
	ask := overGRPC(t, gw, expired)
	const calls = 200
	for range calls {
		if a := ask.refused(t, encrypt("x"), fault.CertificateExpired); a.receipt != "" {
			t.Fatal("a stranger has a receipt")
		}
	}
	counted := func() (n int, sum uint64) {
		for _, r := range records(t, gw)[before:] {
			if r.GetReason() != fault.CertificateExpired.String() || r.GetPhase() != auditv1.Phase_PHASE_EVENT || r.GetCaller() != "" {
				t.Fatalf("an unexpected record: %v", r)
			}
			n, sum = n+1, sum+r.GetCount()
		}
		return n, sum
	}
	eventually(t, patience, "every refusal is counted", func() bool { _, sum := counted(); return sum == calls })
	if n, _ := counted(); n > calls/4 {
		t.Errorf("%d records of %d refusals", n, calls)
	}
}

// A change of the control plane is on record before it is made, with what was to
// change, and after it, with how it ended.
func TestIntentBeforeEffect(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	keyrings := controlv1.NewKeyringServiceClient(gw.Dial(gw.Endpoints.Control, gw.Endpoints.Operator))
	before := len(records(t, gw))
	create := &controlv1.CreateKeyringRequest{Parent: "tenants/demo", KeyringId: "new", Purpose: controlv1.Purpose_PURPOSE_MAC}
	_, first := keyrings.CreateKeyring(t.Context(), create)
	_, second := keyrings.CreateKeyring(t.Context(), create)
	if first != nil || answerOf(second).reason != fault.AlreadyExists {
		t.Fatal(first, second)
	}
	got := records(t, gw)[before:]
	if len(got) != 4 {
		t.Fatalf("%d records of two changes", len(got))
	}
	for i, want := range []string{"", fault.AlreadyExists.String()} {
		intent, outcome := got[2*i], got[2*i+1]
		if intent.GetPhase() != auditv1.Phase_PHASE_INTENT || outcome.GetPhase() != auditv1.Phase_PHASE_OUTCOME {
			t.Errorf("the phases are %v and %v", intent.GetPhase(), outcome.GetPhase())
		}
		if !slices.Equal(intent.GetRequestId(), outcome.GetRequestId()) || outcome.GetReason() != want ||
			!slices.Contains(intent.GetChange(), "purpose=PURPOSE_MAC") || intent.GetResource() != "tenants/demo/keyrings/new" {
			t.Errorf("recorded as %v and %v", intent, outcome)
		}
	}
}

// The whole log verifies offline after a clean stop, and with it every receipt.
func TestLogVerifiesAfterStop(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	var receipts []string
	for _, ask := range doors(t, gw, gw.Endpoints.Workload) {
		for i := range 20 {
			a := ask(t, encrypt(fmt.Sprint(i)))
			receipts = append(receipts, a.receipt)
		}
	}
	if err := gw.Stop(); err != nil {
		t.Fatal(err)
	}
	key := auditKey(t, gw.Endpoints.Audit.Key)
	report, err := tlog.Verify(gw.Endpoints.Audit.Dir, key, tlog.VerifyOptions{})
	if err != nil || report.Torn != 0 || report.Unsealed() != 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	for _, text := range receipts {
		receipt, err := audit.ParseReceipt(text)
		if err != nil {
			t.Fatal(err)
		}
		if in, err := tlog.CheckReceipt(gw.Endpoints.Audit.Dir, key, receipt); err != nil || !in.Sealed {
			t.Fatal(in.Sealed, err)
		}
	}
}
