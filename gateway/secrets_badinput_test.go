package gateway_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sallyport/sallyport/gateway/development"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

// Every bad request about secrets has its one reason, the same over both protocols.
func TestBadInputOfSecrets(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	other := gw.Register("other", "spiffe://"+development.TrustDomain+"/other", false)
	allowOther(t, gw)
	role(t, gw, "narrow", development.DemoSource, certificateParameters(), func(r *controlv1.CreateSecretRoleRequest) {
		r.QuotaPerWorkload = 1
	})
	role(t, gw, "sealed", development.DemoSource, certificateParameters(), func(r *controlv1.CreateSecretRoleRequest) {
		r.SealedOnly = true
	})
	mine := leaseOf(t, gw, gw.Endpoints.Workload, development.DemoSecretRole)
	leaseOf(t, gw, gw.Endpoints.Workload, "tenants/demo/secretRoles/narrow")
	foreign := leaseOf(t, gw, other, development.DemoSecretRole)
	ended := leaseOf(t, gw, gw.Endpoints.Workload, development.DemoSecretRole)
	client := secretsv1.NewSecretServiceClient(dial(t, gw, gw.Endpoints.GRPC, gw.Endpoints.Workload))
	_, err := client.RevokeLease(t.Context(), &secretsv1.RevokeLeaseRequest{Name: ended})
	must(t, err)

	none := "tenants/demo/secretRoles/certificate/leases/00000000000000000000000000000000"
	const forbidden = "tenants/elsewhere/secretRoles/certificate"
	x25519 := func(n int) *secretsv1.Recipient {
		return &secretsv1.Recipient{Kem: secretsv1.Kem_KEM_DHKEM_X25519, PublicKey: make([]byte, n)}
	}
	ofRole := func(r *secretsv1.Recipient) *secretsv1.LeaseSecretRequest {
		return &secretsv1.LeaseSecretRequest{Name: development.DemoSecretRole, Recipient: r}
	}
	rows := []struct {
		name    string
		request proto.Message
		want    fault.Reason
	}{
		{"unknown role", &secretsv1.LeaseSecretRequest{Name: "tenants/demo/secretRoles/nothing"}, fault.PermissionDenied},
		{"forbidden role", &secretsv1.LeaseSecretRequest{Name: forbidden}, fault.PermissionDenied},
		{"malformed role", &secretsv1.LeaseSecretRequest{Name: "tenants/demo/secretRoles/UPPER"}, fault.InvalidArgument},
		{"above the maximum", &secretsv1.LeaseSecretRequest{
			Name: development.DemoSecretRole, Lifetime: durationpb.New(2 * time.Hour),
		}, fault.LifetimeExceeded},
		{"negative lifetime", &secretsv1.LeaseSecretRequest{
			Name: development.DemoSecretRole, Lifetime: durationpb.New(-time.Second),
		}, fault.InvalidArgument},
		{"a lifetime of a millisecond", &secretsv1.LeaseSecretRequest{
			Name: development.DemoSecretRole, Lifetime: durationpb.New(time.Millisecond),
		}, fault.InvalidArgument},
		{"quota reached", &secretsv1.LeaseSecretRequest{Name: "tenants/demo/secretRoles/narrow"}, fault.QuotaExceeded},
		{"sealed only", &secretsv1.LeaseSecretRequest{Name: "tenants/demo/secretRoles/sealed"}, fault.InvalidRecipient},
		{"recipient without key", ofRole(&secretsv1.Recipient{}), fault.InvalidRecipient},
		{"recipient of unknown mechanism", ofRole(&secretsv1.Recipient{Kem: 7, PublicKey: make([]byte, 32)}), fault.InvalidRecipient},
		{"short key", ofRole(x25519(31)), fault.InvalidRecipient},
		{"long key", ofRole(x25519(33)), fault.InvalidRecipient},
		{"key of low order", ofRole(x25519(32)), fault.InvalidRecipient},
		{"not on the curve", ofRole(&secretsv1.Recipient{
			Kem: secretsv1.Kem_KEM_DHKEM_P256, PublicKey: append([]byte{4}, bytes.Repeat([]byte{1}, 64)...),
		}), fault.InvalidRecipient},
		{"two recipients", ofRole(&secretsv1.Recipient{
			Kem: secretsv1.Kem_KEM_DHKEM_X25519, PublicKey: bytes.Repeat([]byte{9}, 32), CertificateKey: true,
		}), fault.InvalidRecipient},

		{"get a foreign lease", &secretsv1.GetLeaseRequest{Name: foreign}, fault.PermissionDenied},
		{"get what is not there", &secretsv1.GetLeaseRequest{Name: none}, fault.PermissionDenied},
		{"get a malformed id", &secretsv1.GetLeaseRequest{Name: none + "0"}, fault.InvalidArgument},
		{"get an upper-case id", &secretsv1.GetLeaseRequest{Name: none[:len(none)-2] + "AA"}, fault.InvalidArgument},
		{"get by another role", &secretsv1.GetLeaseRequest{
			Name: strings.Replace(mine, "/certificate/", "/narrow/", 1),
		}, fault.PermissionDenied},
		{"renew a foreign lease", &secretsv1.RenewLeaseRequest{Name: foreign}, fault.PermissionDenied},
		{"renew what is not there", &secretsv1.RenewLeaseRequest{Name: none}, fault.PermissionDenied},
		{"renew the gone", &secretsv1.RenewLeaseRequest{Name: ended}, fault.LeaseGone},
		{"renew what is not renewable", &secretsv1.RenewLeaseRequest{Name: mine}, fault.LeaseNotRenewable},
		{"revoke a foreign lease", &secretsv1.RevokeLeaseRequest{Name: foreign}, fault.PermissionDenied},
		{"revoke what is not there", &secretsv1.RevokeLeaseRequest{Name: none}, fault.PermissionDenied},
		{"revoke twice", &secretsv1.RevokeLeaseRequest{Name: ended}, admitted},
		{"watch a foreign lease", &secretsv1.WatchLeaseRequest{Name: foreign}, fault.PermissionDenied},
		{"watch what is not there", &secretsv1.WatchLeaseRequest{Name: none}, fault.PermissionDenied},
		{"watch with a bad key", &secretsv1.WatchLeaseRequest{Name: mine, Recipient: x25519(1)}, fault.InvalidRecipient},
		{"list of a forbidden tenant", &secretsv1.ListLeasesRequest{Parent: "tenants/elsewhere"}, fault.PermissionDenied},
		{"list a negative page", &secretsv1.ListLeasesRequest{Parent: "tenants/demo", PageSize: -1}, fault.InvalidArgument},
		{"list from a foreign token", &secretsv1.ListLeasesRequest{Parent: "tenants/demo", PageToken: "AAAA"}, fault.InvalidArgument},
	}
	conn := dial(t, gw, gw.Endpoints.GRPC, gw.Endpoints.Workload)
	rest := browser(t, gw, gw.Endpoints.Workload)
	for _, row := range rows {
		m := methodTaking(t, secretsv1.File_sallyport_secrets_v1_secrets_proto, row.request)
		for protocol, got := range map[string]answer{
			"gRPC": invoke(t, conn, m, row.request), "REST": send(t, rest, restRequest(t, "https://"+gw.Endpoints.REST, m, row.request)),
		} {
			if got.untyped != nil || got.reason != row.want {
				t.Errorf("%s over %s: got %v (%v), want %v", row.name, protocol, got.reason, got.untyped, row.want)
			}
		}
	}
}

// Every bad role is refused when it is made, with the same reason over both protocols.
func TestBadRoles(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	good := func(change func(*controlv1.CreateSecretRoleRequest)) *controlv1.CreateSecretRoleRequest {
		r := &controlv1.CreateSecretRoleRequest{
			Parent: "tenants/demo", SecretRoleId: "new", Source: development.DemoSource, Parameters: certificateParameters(),
			MaxLifetime: durationpb.New(time.Hour),
		}
		change(r)
		return r
	}
	rows := []struct {
		name    string
		request proto.Message
		want    fault.Reason
	}{
		{"no parameters", good(func(r *controlv1.CreateSecretRoleRequest) { r.Parameters = nil }), fault.InvalidArgument},
		{"no kind", good(func(r *controlv1.CreateSecretRoleRequest) { r.Parameters = &controlv1.SecretParameters{} }), fault.InvalidArgument},
		{"another source's kind", good(func(r *controlv1.CreateSecretRoleRequest) { r.Parameters = database("app") }), fault.InvalidArgument},
		{"unknown source", good(func(r *controlv1.CreateSecretRoleRequest) { r.Source = "nowhere" }), fault.InvalidArgument},
		{"no maximum", good(func(r *controlv1.CreateSecretRoleRequest) { r.MaxLifetime = nil }), fault.InvalidArgument},
		{"a year", good(func(r *controlv1.CreateSecretRoleRequest) { r.MaxLifetime = durationpb.New(8760 * time.Hour) }), fault.InvalidArgument},
		{"a certificate of two days", good(func(r *controlv1.CreateSecretRoleRequest) {
			r.MaxLifetime = durationpb.New(48 * time.Hour)
		}), fault.InvalidArgument},
		{"default above maximum", good(func(r *controlv1.CreateSecretRoleRequest) {
			r.DefaultLifetime = durationpb.New(2 * time.Hour)
		}), fault.InvalidArgument},
		{"a quota without end", good(func(r *controlv1.CreateSecretRoleRequest) { r.QuotaPerWorkload = 1 << 30 }), fault.InvalidArgument},
		{"a name with a slash", good(func(r *controlv1.CreateSecretRoleRequest) { r.SecretRoleId = "a/b" }), fault.InvalidArgument},
		{"a tenant that is not there", good(func(r *controlv1.CreateSecretRoleRequest) { r.Parent = "tenants/nobody" }), fault.NotFound},
		{"a name that is taken", good(func(r *controlv1.CreateSecretRoleRequest) { r.SecretRoleId = "certificate" }), fault.AlreadyExists},
		{"a common name with a line break", good(func(r *controlv1.CreateSecretRoleRequest) {
			r.Parameters.GetLocalCertificate().CommonName = "a\nb"
		}), fault.InvalidArgument},
		{"get an unknown role", &controlv1.GetSecretRoleRequest{Name: "tenants/demo/secretRoles/none"}, fault.NotFound},
		{"delete an unknown role", &controlv1.DeleteSecretRoleRequest{Name: "tenants/demo/secretRoles/none"}, fault.NotFound},
		{"update with an old etag", &controlv1.UpdateSecretRoleRequest{
			Name: development.DemoSecretRole, Etag: "7", Parameters: certificateParameters(), MaxLifetime: durationpb.New(time.Hour),
		}, fault.Conflict},
		{"policy of an unknown source", &controlv1.GetSourcePolicyRequest{Name: "sources/none"}, fault.NotFound},
		{"revoke without a filter", &controlv1.RevokeLeasesRequest{}, fault.InvalidArgument},
		{"revoke with an empty filter", &controlv1.RevokeLeasesRequest{Filter: &controlv1.LeaseFilter{}}, fault.InvalidArgument},
		{"search a malformed role", &controlv1.SearchLeasesRequest{Filter: &controlv1.LeaseFilter{Role: "db"}}, fault.InvalidArgument},
		{"search in disagreement", &controlv1.SearchLeasesRequest{Filter: &controlv1.LeaseFilter{
			Role: development.DemoSecretRole, Tenant: "tenants/other",
		}}, fault.InvalidArgument},
		{"inspect what is not there", &controlv1.InspectLeaseRequest{
			Name: development.DemoSecretRole + "/leases/00000000000000000000000000000000",
		}, fault.NotFound},
	}
	conn := dial(t, gw, gw.Endpoints.Control, gw.Endpoints.Operator)
	rest := browser(t, gw, gw.Endpoints.Operator)
	for _, row := range rows {
		m := methodTaking(t, controlv1.File_sallyport_control_v1_secrets_proto, row.request)
		for protocol, got := range map[string]answer{
			"gRPC": invoke(t, conn, m, row.request), "REST": send(t, rest, restRequest(t, "https://"+gw.Endpoints.Control, m, row.request)),
		} {
			if protocol == "REST" && row.name == "a name with a slash" {
				continue // it is another path
			}
			if got.untyped != nil || got.reason != row.want {
				t.Errorf("%s over %s: got %v (%v), want %v", row.name, protocol, got.reason, got.untyped, row.want)
			}
		}
	}
}

func certificateParameters() *controlv1.SecretParameters {
	return &controlv1.SecretParameters{Kind: &controlv1.SecretParameters_LocalCertificate{LocalCertificate: &controlv1.LocalCertificate{}}}
}

// allowOther lets the workload "other" lease in the demo tenant, too.
func allowOther(t *testing.T, gw *gatewaytest.Gateway) {
	t.Helper()
	policies := controlv1.NewPolicyServiceClient(dial(t, gw, gw.Endpoints.Control, gw.Endpoints.Operator))
	_, err := policies.LoadPolicy(t.Context(), &controlv1.LoadPolicyRequest{Files: []*controlv1.PolicyFile{
		{Name: "development.cedar", Content: development.Policy},
		{Name: "other.cedar", Content: `@id("other") permit (principal == Sallyport::Workload::"spiffe://` + development.TrustDomain +
			`/other", action in Sallyport::Action::"secret", resource in Sallyport::Tenant::"tenants/demo");`},
	}})
	must(t, err)
}

// leaseOf leases as a caller, and gives the lease's name.
func leaseOf(t *testing.T, gw *gatewaytest.Gateway, p development.Pair, role string) string {
	t.Helper()
	client := secretsv1.NewSecretServiceClient(dial(t, gw, gw.Endpoints.GRPC, p))
	reply, err := client.LeaseSecret(t.Context(), &secretsv1.LeaseSecretRequest{Name: role})
	must(t, err)
	return reply.GetLease().GetName()
}

// methodTaking finds the method that takes a request.
func methodTaking(t *testing.T, file protoreflect.FileDescriptor, request proto.Message) protoreflect.MethodDescriptor {
	t.Helper()
	for i := range file.Services().Len() {
		methods := file.Services().Get(i).Methods()
		for j := range methods.Len() {
			if m := methods.Get(j); m.Input().FullName() == request.ProtoReflect().Descriptor().FullName() {
				return m
			}
		}
	}
	t.Fatalf("no method takes %s", request.ProtoReflect().Descriptor().FullName())
	return nil
}

// invoke calls a method over gRPC; of a stream it takes the first message.
func invoke(t *testing.T, conn *grpc.ClientConn, m protoreflect.MethodDescriptor, request proto.Message) answer {
	t.Helper()
	path := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	if !m.IsStreamingServer() {
		var reply []byte
		message, err := proto.Marshal(request)
		must(t, err)
		return answerOf(conn.Invoke(t.Context(), path, message, &reply, grpc.ForceCodecV2(raw{})))
	}
	stream, err := secretsv1.NewSecretServiceClient(conn).WatchLease(t.Context(), request.(*secretsv1.WatchLeaseRequest))
	must(t, err)
	_, err = stream.Recv()
	return answerOf(err)
}

// restRequest puts a request where its method's annotation wants it.
func restRequest(t *testing.T, base string, m protoreflect.MethodDescriptor, request proto.Message) *http.Request {
	t.Helper()
	rule := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
	request = proto.Clone(request)
	verb, path := http.MethodPost, rule.GetPost()
	if path == "" {
		verb, path = http.MethodGet, rule.GetGet()
	}
	if loc := inPath.FindStringSubmatchIndex(path); loc != nil {
		field, _, _ := strings.Cut(path[loc[0]+1:], "=")
		fd := request.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(field))
		path = path[:loc[0]] + request.ProtoReflect().Get(fd).String() + path[loc[1]:]
		request.ProtoReflect().Clear(fd)
	}
	body, err := protojson.Marshal(request)
	must(t, err)
	if verb == http.MethodGet {
		query := ""
		for name, value := range map[string]string{"pageSize": "page_size", "pageToken": "page_token"} {
			fd := request.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(value))
			if fd != nil && request.ProtoReflect().Has(fd) {
				query += "&" + name + "=" + request.ProtoReflect().Get(fd).String()
			}
		}
		path, body = path+"?"+strings.TrimPrefix(query, "&"), nil
		path = strings.TrimSuffix(path, "?")
	}
	req, err := http.NewRequestWithContext(t.Context(), verb, base+path, bytes.NewReader(body))
	must(t, err)
	req.Header.Set("Content-Type", "application/json")
	return req
}
