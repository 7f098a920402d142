package gateway_test

import (
	"context"
	"reflect"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/sallyport/sallyport/gateway/development"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
)

// admitted stands for an answer, or a refusal that is not about who calls.
const admitted = fault.Reason(0)

// matrix says, for every kind of caller, what each RPC answers. It is written from
// the design, not from the code: an RPC without a row fails the test, and so does
// a row without an RPC.
var matrix = map[string]map[string]fault.Reason{
	"registered workload": {data: admitted, control: fault.CallerKindRefused},
	"automation workload": {data: admitted, control: admitted},
	"human":               {data: fault.HumanOnDataPlane, control: admitted},
	"unregistered":        {data: fault.WorkloadNotRegistered, control: fault.WorkloadNotRegistered},
	"disabled":            {data: fault.WorkloadDisabled, control: fault.WorkloadDisabled},
	"revoked":             {data: fault.CertificateRevoked, control: fault.CertificateRevoked},
	"expired":             {data: fault.CertificateExpired, control: fault.CertificateExpired},
	"not yet valid":       {data: fault.CertificateNotYetValid, control: fault.CertificateNotYetValid},
	"foreign domain":      {data: fault.ForeignTrustDomain, control: fault.ForeignTrustDomain},
	"without SPIFFE id":   {data: fault.NotAnSVID, control: fault.NotAnSVID},
	"self-signed":         {data: fault.CertificateUntrusted, control: fault.CertificateUntrusted},
	"expired human":       {data: fault.CertificateExpired, control: fault.CertificateExpired},
	"human with SPIFFE":   {data: fault.HumanOnDataPlane, control: admitted},
}

const data, control = "data", "control"

// rows are the RPCs and the plane of each.
var rows = map[string]string{
	"Encrypt": data, "Decrypt": data, "Rewrap": data, "BatchEncrypt": data, "BatchDecrypt": data, "BatchRewrap": data,
	"ComputeMac": data, "VerifyMac": data, "DeterministicEncrypt": data, "DeterministicDecrypt": data,

	"CreateTenant": control, "ListTenants": control, "CreateKeyring": control, "GetKeyring": control,
	"ListKeyrings": control, "RotateKeyring": control, "SetVersionState": control,
	"RegisterWorkload": control, "ListWorkloads": control, "DisableWorkload": control, "EnableWorkload": control,
	"RevokeCertificate": control, "ListRevokedCertificates": control,
	"GetPolicy": control, "LoadPolicy": control,
}

// clients makes the generated clients of a plane.
func clients(plane string, c grpc.ClientConnInterface) []any {
	if plane == data {
		return []any{datav1.NewDataServiceClient(c)}
	}
	return []any{
		controlv1.NewKeyringServiceClient(c), controlv1.NewWorkloadServiceClient(c), controlv1.NewPolicyServiceClient(c),
	}
}

func TestCallerMatrix(t *testing.T) {
	gw := gatewaytest.Start(t)
	callers := matrixCallers(t, gw)
	if len(callers) != len(matrix) {
		t.Fatalf("%d callers and %d rows of them", len(callers), len(matrix))
	}
	for caller, pair := range callers {
		t.Run(caller, func(t *testing.T) {
			called := map[string]bool{}
			for plane, address := range map[string]string{data: gw.Endpoints.GRPC, control: gw.Endpoints.Control} {
				conn := gw.Dial(address, pair)
				for _, client := range clients(plane, conn) {
					for name, err := range callAll(t, client) {
						called[name] = true
						if rows[name] != plane {
							t.Errorf("%s has no row, or one on another plane", name)
							continue
						}
						checkCell(t, name, err, matrix[caller][plane])
					}
				}
			}
			for name := range rows {
				if !called[name] {
					t.Errorf("the row %s has no RPC", name)
				}
			}
		})
	}
}

func checkCell(t *testing.T, name string, err error, want fault.Reason) {
	t.Helper()
	got := admitted
	if f, ok := fault.FromStatus(status.Convert(err)); ok {
		got = f.Reason
	} else if err != nil {
		t.Errorf("%s: an untyped error: %v", name, err)
	}
	if want == admitted {
		// What is asked for does not exist: any answer but one about the caller.
		if got >= fault.CertificateExpired && got <= fault.CallerKindRefused {
			t.Errorf("%s: refused with %v, want admitted", name, got)
		}
		return
	}
	if got != want {
		t.Errorf("%s: got %v, want %v", name, got, want)
	}
}

// callAll calls every RPC of a generated client with an empty request.
func callAll(t *testing.T, client any) map[string]error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	results := map[string]error{}
	v := reflect.ValueOf(client)
	for i := range v.NumMethod() {
		method := v.Method(i)
		request := reflect.New(method.Type().In(1).Elem())
		out := method.Call([]reflect.Value{reflect.ValueOf(ctx), request})
		err, _ := out[1].Interface().(error)
		results[v.Type().Method(i).Name] = err
	}
	return results
}

// matrixCallers makes one certificate of each kind.
func matrixCallers(t *testing.T, gw *gatewaytest.Gateway) map[string]development.Pair {
	t.Helper()
	const domain = "spiffe://" + development.TrustDomain
	issue := func(a *development.Authority, l development.Leaf) development.Pair { return gw.Issue(a, l) }
	past := func(l development.Leaf) development.Leaf {
		l.NotBefore, l.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		return l
	}
	callers := map[string]development.Pair{
		"registered workload": gw.Endpoints.Workload,
		"automation workload": gw.Register("robot", domain+"/robot", true),
		"human":               gw.Endpoints.Operator,
		"unregistered":        issue(gw.Workloads, development.Leaf{SPIFFEID: domain + "/nobody"}),
		"disabled":            gw.Register("off", domain+"/off", false),
		"revoked":             gw.Register("leaked", domain+"/leaked", true),
		"expired":             issue(gw.Workloads, past(development.Leaf{SPIFFEID: development.DemoWorkload})),
		"not yet valid": issue(gw.Workloads, development.Leaf{
			SPIFFEID: development.DemoWorkload, NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour),
		}),
		"foreign domain":    issue(gw.Workloads, development.Leaf{SPIFFEID: "spiffe://other.example/demo"}),
		"without SPIFFE id": issue(gw.Workloads, development.Leaf{CommonName: "demo"}),
		"expired human":     issue(gw.Operators, past(development.Leaf{CommonName: "mallory"})),
		"human with SPIFFE": issue(gw.Operators, development.Leaf{CommonName: "mallory", SPIFFEID: development.DemoWorkload}),
	}
	stranger, err := development.NewAuthority(t.TempDir(), "stranger")
	if err != nil {
		t.Fatal(err)
	}
	callers["self-signed"] = issue(stranger, development.Leaf{SPIFFEID: development.DemoWorkload})

	admin := controlv1.NewWorkloadServiceClient(gw.Dial(gw.Endpoints.Control, gw.Endpoints.Operator))
	if _, err := admin.DisableWorkload(t.Context(), &controlv1.DisableWorkloadRequest{Name: "workloads/off"}); err != nil {
		t.Fatal(err)
	}
	revoke(t, admin, callers["revoked"])
	return callers
}

func revoke(t *testing.T, admin controlv1.WorkloadServiceClient, p development.Pair) {
	t.Helper()
	_, err := admin.RevokeCertificate(t.Context(), &controlv1.RevokeCertificateRequest{Sha256Fingerprint: fingerprint(t, p)})
	if err != nil {
		t.Fatal(err)
	}
}
