package pipeline

import (
	"context"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/identity"
	"github.com/sallyport/sallyport/gateway/policy"
	optionsv1 "github.com/sallyport/sallyport/proto/sallyport/options/v1"
)

// Route is one row of the table: a method, whom it admits, and what it does. Data
// and Control make one; nothing else can.
type Route struct {
	// Method is the full name, for example "sallyport.data.v1.DataService.Encrypt".
	Method protoreflect.FullName
	Plane  optionsv1.Plane
	// Action is what policy calls the method.
	Action policy.Action
	// Effect is true if the method does something that outlives its reply. Such a
	// call has two records: the intent before, the outcome after.
	Effect bool
	// Stream is true if the method answers one request with several replies.
	Stream bool

	// receipted puts a receipt into a reply of a stream.
	receipted func(reply proto.Message, receipt string)
	admits    []optionsv1.CallerKind
	request   func() proto.Message
	reply     func() proto.Message
	subject   func(req proto.Message, s *Subject) error
	narrow    func(identity.Caller) *fault.Error
	act       func(ctx context.Context, c *call, req, reply proto.Message) error
}

// message is a pointer to a generated message struct.
type message[T any] interface {
	*T
	proto.Message
}

// Data makes the row of a data-plane method. The handler takes a workload's grant:
// one for a human cannot be made, so a person cannot reach it.
func Data[Req, Reply any, PReq message[Req], PReply message[Reply]](
	method protoreflect.FullName, action policy.Action,
	subject func(PReq, *Subject) error,
	act func(context.Context, Grant[identity.Workload], PReq, PReply) error,
) Route {
	r := newRoute[Req, Reply, PReq, PReply](method, action, subject)
	r.Plane = optionsv1.Plane_PLANE_DATA
	r.admits = []optionsv1.CallerKind{optionsv1.CallerKind_CALLER_KIND_WORKLOAD}
	r.narrow = func(c identity.Caller) *fault.Error {
		if _, ok := c.(identity.Workload); !ok {
			return fault.New(fault.HumanOnDataPlane, "")
		}
		return nil
	}
	r.act = func(ctx context.Context, c *call, req, reply proto.Message) error {
		w, ok := c.caller.(identity.Workload)
		if !ok {
			return fault.New(fault.HumanOnDataPlane, "")
		}
		return act(ctx, Grant[identity.Workload]{c, w}, req.(PReq), reply.(PReply))
	}
	return r
}

// Issuing makes the row of a data-plane method with an effect that outlives its
// reply.
func Issuing[Req, Reply any, PReq message[Req], PReply message[Reply]](
	method protoreflect.FullName, action policy.Action,
	subject func(PReq, *Subject) error,
	act func(context.Context, Grant[identity.Workload], PReq, PReply) error,
) Route {
	r := Data(method, action, subject, act)
	r.Effect = true
	return r
}

// Watching makes the row of a data-plane method that issues in a stream. The handler
// is called for each reply, and says with Grant.Again when the next is due; receipted
// puts the receipt into the reply.
func Watching[Req, Reply any, PReq message[Req], PReply message[Reply]](
	method protoreflect.FullName, action policy.Action,
	subject func(PReq, *Subject) error,
	act func(context.Context, Grant[identity.Workload], PReq, PReply) error,
	receipted func(reply PReply, receipt string),
) Route {
	r := Issuing(method, action, subject, act)
	r.Stream = true
	r.receipted = func(reply proto.Message, receipt string) { receipted(reply.(PReply), receipt) }
	return r
}

// Control makes the row of a control-plane method that only reads.
func Control[Req, Reply any, PReq message[Req], PReply message[Reply]](
	method protoreflect.FullName, action policy.Action,
	subject func(PReq, *Subject) error,
	act func(context.Context, Grant[identity.Caller], PReq, PReply) error,
) Route {
	r := newRoute[Req, Reply, PReq, PReply](method, action, subject)
	r.Plane = optionsv1.Plane_PLANE_CONTROL
	r.admits = []optionsv1.CallerKind{
		optionsv1.CallerKind_CALLER_KIND_HUMAN, optionsv1.CallerKind_CALLER_KIND_AUTOMATION,
	}
	r.narrow = func(c identity.Caller) *fault.Error {
		switch c := c.(type) {
		case identity.Human:
			return nil
		case identity.Workload:
			if c.Automation() {
				return nil
			}
		}
		return fault.New(fault.CallerKindRefused, "")
	}
	r.act = func(ctx context.Context, c *call, req, reply proto.Message) error {
		return act(ctx, Grant[identity.Caller]{c, c.caller}, req.(PReq), reply.(PReply))
	}
	return r
}

// Effectful makes the row of a control-plane method that changes something.
func Effectful[Req, Reply any, PReq message[Req], PReply message[Reply]](
	method protoreflect.FullName, action policy.Action,
	subject func(PReq, *Subject) error,
	act func(context.Context, Grant[identity.Caller], PReq, PReply) error,
) Route {
	r := Control(method, action, subject, act)
	r.Effect = true
	return r
}

func newRoute[Req, Reply any, PReq message[Req], PReply message[Reply]](
	method protoreflect.FullName, action policy.Action, subject func(PReq, *Subject) error,
) Route {
	return Route{
		Method: method, Action: action,
		request: func() proto.Message { return PReq(new(Req)) },
		reply:   func() proto.Message { return PReply(new(Reply)) },
		subject: func(req proto.Message, s *Subject) error { return subject(req.(PReq), s) },
	}
}

// NewRequest makes an empty request message.
func (r *Route) NewRequest() proto.Message { return r.request() }

// NewReply makes an empty reply message.
func (r *Route) NewReply() proto.Message { return r.reply() }

// Path is the method's gRPC path, "/package.Service/Method".
func (r *Route) Path() string {
	return "/" + string(r.Method.Parent()) + "/" + string(r.Method.Name())
}
