package gateway_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sallyport/sallyport/gateway/development"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
	"github.com/sallyport/sallyport/gateway/transport"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
	optionsv1 "github.com/sallyport/sallyport/proto/sallyport/options/v1"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

// admitted stands for an answer, or a refusal that is not about who calls.
const admitted = fault.Reason(0)

// matrix says, for every kind of caller, what each RPC answers. It is written from
// the design, not from the code: an RPC without a row fails the test, and so does
// a row without an RPC.
var matrix = map[string]map[string]fault.Reason{
	"registered workload": {onData: admitted, onControl: fault.CallerKindRefused},
	"automation workload": {onData: admitted, onControl: admitted},
	"human":               {onData: fault.HumanOnDataPlane, onControl: admitted},
	"unregistered":        {onData: fault.WorkloadNotRegistered, onControl: fault.WorkloadNotRegistered},
	"disabled":            {onData: fault.WorkloadDisabled, onControl: fault.WorkloadDisabled},
	"revoked":             {onData: fault.CertificateRevoked, onControl: fault.CertificateRevoked},
	"expired":             {onData: fault.CertificateExpired, onControl: fault.CertificateExpired},
	"not yet valid":       {onData: fault.CertificateNotYetValid, onControl: fault.CertificateNotYetValid},
	"foreign domain":      {onData: fault.ForeignTrustDomain, onControl: fault.ForeignTrustDomain},
	"without SPIFFE id":   {onData: fault.NotAnSVID, onControl: fault.NotAnSVID},
	"self-signed":         {onData: fault.CertificateUntrusted, onControl: fault.CertificateUntrusted},
	"expired human":       {onData: fault.CertificateExpired, onControl: fault.CertificateExpired},
	"human with SPIFFE":   {onData: fault.HumanOnDataPlane, onControl: admitted},
}

const onData, onControl = "data", "control"

// rows are the RPCs and the plane of each.
var rows = map[string]string{
	"Encrypt": onData, "Decrypt": onData, "Rewrap": onData, "BatchEncrypt": onData, "BatchDecrypt": onData, "BatchRewrap": onData,
	"ComputeMac": onData, "VerifyMac": onData, "DeterministicEncrypt": onData, "DeterministicDecrypt": onData,
	"LeaseSecret": onData, "RenewLease": onData, "RevokeLease": onData, "GetLease": onData, "ListLeases": onData,
	"WatchLease": onData,

	"CreateTenant": onControl, "ListTenants": onControl, "CreateKeyring": onControl, "GetKeyring": onControl,
	"ListKeyrings": onControl, "RotateKeyring": onControl, "SetVersionState": onControl,
	"RegisterWorkload": onControl, "ListWorkloads": onControl, "DisableWorkload": onControl, "EnableWorkload": onControl,
	"RevokeCertificate": onControl, "ListRevokedCertificates": onControl,
	"GetPolicy": onControl, "LoadPolicy": onControl,
	"CreateSecretRole": onControl, "GetSecretRole": onControl, "ListSecretRoles": onControl,
	"UpdateSecretRole": onControl, "DeleteSecretRole": onControl, "ListSources": onControl, "GetSourcePolicy": onControl,
	"InspectLease": onControl, "SearchLeases": onControl, "RevokeLeases": onControl,
}

// clients makes the generated clients of a plane.
func clients(plane string, c grpc.ClientConnInterface) []any {
	if plane == onData {
		return []any{datav1.NewDataServiceClient(c), secretsv1.NewSecretServiceClient(c)}
	}
	return []any{
		controlv1.NewKeyringServiceClient(c), controlv1.NewWorkloadServiceClient(c), controlv1.NewPolicyServiceClient(c),
		controlv1.NewSecretRoleServiceClient(c), controlv1.NewLeaseServiceClient(c),
	}
}

func TestCallerMatrix(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	callers := matrixCallers(t, gw)
	if len(callers) != len(matrix) {
		t.Fatalf("%d callers and %d rows of them", len(callers), len(matrix))
	}
	for caller, pair := range callers {
		t.Run(caller, func(t *testing.T) {
			called := map[string]bool{}
			for plane, address := range map[string]string{onData: gw.Endpoints.GRPC, onControl: gw.Endpoints.Control} {
				conn := gw.Dial(address, pair)
				for _, client := range clients(plane, conn) {
					for name, err := range callAll(t, client) {
						called[name] = true
						if rows[name] != plane {
							t.Errorf("%s has no row, or one on another plane", name)
							continue
						}
						checkAnswer(t, name, answerOf(err), matrix[caller][plane])
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

func checkAnswer(t *testing.T, method string, a answer, want fault.Reason) {
	t.Helper()
	aboutCaller := a.reason >= fault.CertificateExpired && a.reason <= fault.CallerKindRefused
	switch {
	case a.untyped != nil:
		t.Errorf("%s: an untyped error: %v", method, a.untyped)
	case want == admitted && aboutCaller:
		// What is asked for does not exist: any answer but one about the caller.
		t.Errorf("%s: refused with %v, want admitted", method, a.reason)
	case want != admitted && a.reason != want:
		t.Errorf("%s: got %v, want %v", method, a.reason, want)
	}
}

// callAll calls every RPC of a generated client with an empty request, or as good
// as empty.
func callAll(t *testing.T, client any) map[string]error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	results := map[string]error{}
	v := reflect.ValueOf(client)
	for i := range v.NumMethod() {
		method := v.Method(i)
		request := reflect.New(method.Type().In(1).Elem())
		if load, ok := request.Interface().(*controlv1.LoadPolicyRequest); ok {
			load.ExpectedRevision = neverRevision
		}
		out := method.Call([]reflect.Value{reflect.ValueOf(ctx), request})
		err, _ := out[1].Interface().(error)
		if stream, ok := out[0].Interface().(secretsv1.SecretService_WatchLeaseClient); ok && err == nil {
			_, err = stream.Recv()
		}
		results[v.Type().Method(i).Name] = err
	}
	return results
}

// neverRevision keeps an empty LoadPolicy from taking everybody's policy away.
const neverRevision = 1 << 40

// The same over REST, by the paths that the protos annotate.
func TestCallerMatrixOverREST(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	for caller, pair := range matrixCallers(t, gw) {
		t.Run(caller, func(t *testing.T) {
			client := browser(t, gw, pair)
			for method, plane := range planes() {
				address := map[string]string{onData: gw.Endpoints.REST, onControl: gw.Endpoints.Control}[plane]
				a := send(t, client, annotated(t, method, "https://"+address))
				checkAnswer(t, string(method.Name()), a, matrix[caller][plane])
			}
		})
	}
}

// A row for each RPC that the protos declare, on the plane that they declare, and
// no other row.
func TestMatrixIsComplete(t *testing.T) {
	declared := map[string]string{}
	for method, plane := range planes() {
		declared[string(method.Name())] = plane
	}
	if !maps.Equal(declared, rows) {
		t.Errorf("the protos declare %v, the rows are %v", declared, rows)
	}
}

// planes gives every method with the plane that its options declare.
func planes() map[protoreflect.MethodDescriptor]string {
	out := map[protoreflect.MethodDescriptor]string{}
	for _, s := range slices.Concat(transport.DataServices(), transport.ControlServices()) {
		for i := range s.Methods().Len() {
			m := s.Methods().Get(i)
			access := proto.GetExtension(m.Options(), optionsv1.E_Access).(*optionsv1.Access)
			out[m] = map[optionsv1.Plane]string{optionsv1.Plane_PLANE_DATA: onData, optionsv1.Plane_PLANE_CONTROL: onControl}[access.GetPlane()]
		}
	}
	return out
}

var inPath = regexp.MustCompile(`\{\w+=([^}]*)\}`)

// annotated makes the REST request of a method, about things that do not exist.
func annotated(t *testing.T, m protoreflect.MethodDescriptor, base string) *http.Request {
	t.Helper()
	rule := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
	verb, path, body := http.MethodPost, rule.GetPost(), "{}"
	if path == "" {
		verb, path, body = http.MethodGet, rule.GetGet(), ""
	}
	if m.Name() == "LoadPolicy" {
		body = fmt.Sprintf(`{"expectedRevision":"%d"}`, int64(neverRevision))
	}
	path = strings.ReplaceAll(inPath.ReplaceAllString(path, "$1"), "*", "none")
	req, err := http.NewRequestWithContext(t.Context(), verb, base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return req
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
