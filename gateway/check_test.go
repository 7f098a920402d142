package gateway_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/sallyport/sallyport/gateway/broker"
	"github.com/sallyport/sallyport/gateway/control"
	"github.com/sallyport/sallyport/gateway/dataplane"
	"github.com/sallyport/sallyport/gateway/pipeline"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
	optionsv1 "github.com/sallyport/sallyport/proto/sallyport/options/v1"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

// declared is what the protos of both planes declare, to be changed.
type declared struct {
	data, secrets, control, roles *descriptorpb.FileDescriptorProto
}

func protos() declared {
	return declared{
		protodesc.ToFileDescriptorProto(datav1.File_sallyport_data_v1_data_proto),
		protodesc.ToFileDescriptorProto(secretsv1.File_sallyport_secrets_v1_secrets_proto),
		protodesc.ToFileDescriptorProto(controlv1.File_sallyport_control_v1_control_proto),
		protodesc.ToFileDescriptorProto(controlv1.File_sallyport_control_v1_secrets_proto),
	}
}

// check compares the real table with what is declared.
func (d declared) check(t *testing.T, routes []pipeline.Route) error {
	t.Helper()
	var services []protoreflect.ServiceDescriptor
	for _, p := range []*descriptorpb.FileDescriptorProto{d.data, d.secrets, d.control, d.roles} {
		file, err := protodesc.NewFile(p, protoregistry.GlobalFiles)
		if err != nil {
			t.Fatal(err)
		}
		for i := range file.Services().Len() {
			services = append(services, file.Services().Get(i))
		}
	}
	return pipeline.Check(routes, services...)
}

func realTable() []pipeline.Route {
	return slices.Concat((&dataplane.Plane{}).Routes(), (&broker.Plane{}).Routes(), (&control.Plane{}).Routes())
}

func methodOf(f *descriptorpb.FileDescriptorProto, name string) *descriptorpb.MethodDescriptorProto {
	for _, s := range f.Service {
		for _, m := range s.Method {
			if m.GetName() == name {
				return m
			}
		}
	}
	panic("no method " + name)
}

func accessOf(f *descriptorpb.FileDescriptorProto, name string) *optionsv1.Access {
	return proto.GetExtension(methodOf(f, name).Options, optionsv1.E_Access).(*optionsv1.Access)
}

// addField adds a field of bytes to a message.
func addField(f *descriptorpb.FileDescriptorProto, message, field string) {
	for _, m := range f.MessageType {
		if m.GetName() == message {
			m.Field = append(m.Field, &descriptorpb.FieldDescriptorProto{
				Name: &field, Number: proto.Int32(500), Type: descriptorpb.FieldDescriptorProto_TYPE_BYTES.Enum(),
				Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			})
		}
	}
}

// The gateway does not start on any of these: each disagreement between the table
// and the protos is refused, with the method's name.
func TestTableAndProtosMustAgree(t *testing.T) {
	t.Parallel()
	if err := protos().check(t, realTable()); err != nil {
		t.Fatal(err)
	}
	const human, workload = optionsv1.CallerKind_CALLER_KIND_HUMAN, optionsv1.CallerKind_CALLER_KIND_WORKLOAD
	for name, test := range map[string]struct {
		change func(d declared, routes *[]pipeline.Route)
		want   string
	}{
		"a method without a row": {func(_ declared, r *[]pipeline.Route) { *r = (*r)[1:] }, "DataService.Encrypt: has no row"},
		"a row without a method": {func(d declared, _ *[]pipeline.Route) {
			d.data.Service[0].Method = d.data.Service[0].Method[1:]
		}, "DataService.Encrypt has a row and no method"},
		"two rows of a method": {func(_ declared, r *[]pipeline.Route) { *r = append(*r, (*r)[0]) }, "DataService.Encrypt has two rows"},
		"two methods of an action": {func(_ declared, r *[]pipeline.Route) {
			(*r)[1].Action = (*r)[0].Action
		}, "share the action"},
		"no declaration": {func(d declared, _ *[]pipeline.Route) {
			methodOf(d.data, "Decrypt").Options = nil
		}, "DataService.Decrypt: does not declare its access"},
		"another plane": {func(d declared, _ *[]pipeline.Route) {
			accessOf(d.data, "Encrypt").Plane = optionsv1.Plane_PLANE_CONTROL
		}, "DataService.Encrypt: is declared for PLANE_CONTROL"},
		"a data row served on the control plane": {func(_ declared, r *[]pipeline.Route) {
			(*r)[0].Plane = optionsv1.Plane_PLANE_CONTROL
		}, "DataService.Encrypt: is declared for PLANE_DATA"},
		"more callers": {func(d declared, _ *[]pipeline.Route) {
			accessOf(d.data, "Encrypt").Callers = []optionsv1.CallerKind{workload, human}
		}, "DataService.Encrypt: declares callers"},
		"fewer callers": {func(d declared, _ *[]pipeline.Route) {
			accessOf(d.control, "GetKeyring").Callers = []optionsv1.CallerKind{human}
		}, "KeyringService.GetKeyring: declares callers"},
		"nobody": {func(d declared, _ *[]pipeline.Route) { accessOf(d.data, "Encrypt").Callers = nil }, "DataService.Encrypt: declares callers"},
		"plaintext for humans": {func(d declared, _ *[]pipeline.Route) {
			accessOf(d.data, "Decrypt").Callers = []optionsv1.CallerKind{human}
		}, "DataService.Decrypt: can return plaintext and admits others"},
		"plaintext on the control plane": {func(d declared, _ *[]pipeline.Route) {
			accessOf(d.control, "GetPolicy").ReplyCarriesPlaintext = true
		}, "PolicyService.GetPolicy: can return plaintext and admits others"},
		"plaintext that is not declared": {func(d declared, _ *[]pipeline.Route) {
			accessOf(d.data, "Decrypt").ReplyCarriesPlaintext = false
		}, "DataService.Decrypt: returns sallyport.data.v1.DecryptResponse.plaintext and does not declare"},
		"plaintext deep in a reply": {func(d declared, _ *[]pipeline.Route) {
			addField(d.data, "ItemError", "plaintext")
		}, "DataService.BatchEncrypt: returns sallyport.data.v1.ItemError.plaintext"},
		"bytes in a control reply": {func(d declared, _ *[]pipeline.Route) {
			addField(d.control, "Keyring", "material")
		}, "KeyringService.GetKeyring: returns sallyport.control.v1.Keyring.material"},
		"bytes deep in a control reply": {func(d declared, _ *[]pipeline.Route) {
			addField(d.control, "KeyVersion", "material")
		}, "KeyringService.ListKeyrings: returns sallyport.control.v1.KeyVersion.material"},
		"another request": {func(d declared, _ *[]pipeline.Route) {
			methodOf(d.data, "Decrypt").InputType = proto.String(".sallyport.data.v1.RewrapRequest")
		}, "DataService.Decrypt: takes"},
		"another reply": {func(d declared, _ *[]pipeline.Route) {
			methodOf(d.data, "Encrypt").OutputType = proto.String(".sallyport.data.v1.RewrapResponse")
		}, "DataService.Encrypt: returns"},
		"secrets for humans": {func(d declared, _ *[]pipeline.Route) {
			accessOf(d.secrets, "LeaseSecret").Callers = []optionsv1.CallerKind{human}
		}, "SecretService.LeaseSecret: can return plaintext and admits others"},
		"secrets that are not declared": {func(d declared, _ *[]pipeline.Route) {
			accessOf(d.secrets, "WatchLease").ReplyCarriesPlaintext = false
		}, "SecretService.WatchLease: returns sallyport.secrets.v1.WatchLeaseResponse.plaintext and does not declare"},
		"bytes in a role": {func(d declared, _ *[]pipeline.Route) {
			addField(d.roles, "SecretRole", "material")
		}, "SecretRoleService.GetSecretRole: returns sallyport.control.v1.SecretRole.material"},
		"a stream that does not stream": {func(d declared, _ *[]pipeline.Route) {
			methodOf(d.secrets, "WatchLease").ServerStreaming = nil
		}, "SecretService.WatchLease: disagrees with its row"},
		"a stream of requests": {func(d declared, _ *[]pipeline.Route) {
			methodOf(d.secrets, "WatchLease").ClientStreaming = proto.Bool(true)
		}, "SecretService.WatchLease: takes a stream"},
		"streaming": {func(d declared, _ *[]pipeline.Route) {
			methodOf(d.data, "Decrypt").ServerStreaming = proto.Bool(true)
		}, "DataService.Decrypt: disagrees with its row on whether it streams"},
	} {
		t.Run(name, func(t *testing.T) {
			d, routes := protos(), realTable()
			test.change(d, &routes)
			if err := d.check(t, routes); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got: %v\nwant: %s", err, test.want)
			}
		})
	}
}
