package pipeline

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	optionsv1 "github.com/sallyport/sallyport/proto/sallyport/options/v1"
)

// Check compares the table with what the services declare about themselves, and
// lists every disagreement. The gateway does not start while there is one.
func Check(routes []Route, services ...protoreflect.ServiceDescriptor) error {
	var problems []error
	rows := map[protoreflect.FullName]*Route{}
	actions := map[string]protoreflect.FullName{}
	for i := range routes {
		r := &routes[i]
		if rows[r.Method] != nil {
			problems = append(problems, fmt.Errorf("%s has two rows", r.Method))
		}
		rows[r.Method] = r
		if other, taken := actions[r.Action.String()]; taken {
			problems = append(problems, fmt.Errorf("%s and %s share the action %s", r.Method, other, r.Action))
		}
		actions[r.Action.String()] = r.Method
	}
	for _, s := range services {
		for i := range s.Methods().Len() {
			m := s.Methods().Get(i)
			problems = append(problems, checkMethod(m, rows[m.FullName()])...)
			delete(rows, m.FullName())
		}
	}
	for name := range rows {
		problems = append(problems, fmt.Errorf("%s has a row and no method", name))
	}
	return errors.Join(problems...)
}

func checkMethod(m protoreflect.MethodDescriptor, r *Route) (problems []error) {
	say := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("%s: "+format, append([]any{m.FullName()}, args...)...))
	}
	options, _ := m.Options().(*descriptorpb.MethodOptions)
	access, _ := proto.GetExtension(options, optionsv1.E_Access).(*optionsv1.Access)
	switch {
	case r == nil:
		say("has no row")
		return problems
	case access == nil:
		say("does not declare its access")
		return problems
	case m.IsStreamingClient():
		say("takes a stream, and the pipeline answers one request")
	case m.IsStreamingServer() != r.Stream:
		say("disagrees with its row on whether it streams")
	}
	if access.GetPlane() != r.Plane {
		say("is declared for %s and served on %s", access.GetPlane(), r.Plane)
	}
	if !slices.Equal(access.GetCallers(), r.admits) {
		say("declares callers %v and its row admits %v", access.GetCallers(), r.admits)
	}
	if req := r.request().ProtoReflect().Descriptor(); req.FullName() != m.Input().FullName() {
		say("takes %s and its row %s", m.Input().FullName(), req.FullName())
	}
	if reply := r.reply().ProtoReflect().Descriptor(); reply.FullName() != m.Output().FullName() {
		say("returns %s and its row %s", m.Output().FullName(), reply.FullName())
	}
	if access.GetReplyCarriesPlaintext() {
		onlyWorkloads := len(access.GetCallers()) == 1 && access.GetCallers()[0] == optionsv1.CallerKind_CALLER_KIND_WORKLOAD
		if !onlyWorkloads || r.Plane != optionsv1.Plane_PLANE_DATA {
			say("can return plaintext and admits others than workloads")
		}
	} else if field := findField(m.Output(), isPlaintext); field != "" {
		say("returns %s and does not declare that its reply carries plaintext", field)
	}
	if r.Plane == optionsv1.Plane_PLANE_CONTROL {
		if field := findField(m.Output(), isBytes); field != "" {
			say("returns %s: a control reply has no bytes to hide a key in", field)
		}
	}
	return problems
}

func isPlaintext(f protoreflect.FieldDescriptor) bool { return f.Name() == "plaintext" }
func isBytes(f protoreflect.FieldDescriptor) bool     { return f.Kind() == protoreflect.BytesKind }

// findField gives the first field reachable from a message that matches, or "".
func findField(m protoreflect.MessageDescriptor, match func(protoreflect.FieldDescriptor) bool) protoreflect.FullName {
	seen := map[protoreflect.FullName]bool{}
	var walk func(protoreflect.MessageDescriptor) protoreflect.FullName
	walk = func(m protoreflect.MessageDescriptor) protoreflect.FullName {
		if seen[m.FullName()] {
			return ""
		}
		seen[m.FullName()] = true
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			if match(f) {
				return f.FullName()
			}
			if f.Message() != nil {
				if found := walk(f.Message()); found != "" {
					return found
				}
			}
		}
		return ""
	}
	return walk(m)
}
