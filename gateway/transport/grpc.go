package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/pipeline"
)

// ReceiptTrailer is the gRPC trailer that carries a call's receipt.
const ReceiptTrailer = "sallyport-receipt"

// Limits bound what a listener accepts. Every field is required.
type Limits struct {
	// MaxRequestBytes is the size of a message, or of a JSON body.
	MaxRequestBytes int
	// MaxConnections is how many connections a listener holds; more wait.
	MaxConnections int
	// MaxStreams is how many calls one connection may have at once.
	MaxStreams uint32
	// MaxConnectionAge is when a connection is asked to go, within a tenth.
	MaxConnectionAge time.Duration
	// RequestTimeout bounds reading a request and writing a reply.
	RequestTimeout time.Duration
}

// hardLimitFactor times MaxRequestBytes is where grpc-go itself cuts a message off,
// with a bare RESOURCE_EXHAUSTED; between the two the refusal has its reason.
const hardLimitFactor = 4

// Flow-control windows, in bytes. With fixed ones grpc-go does not measure the
// connection by pings, and an update is a rare frame: a tenth of the processor for
// small calls.
const (
	streamWindow = 1 << 20
	connWindow   = 16 << 20
)

// streamWorkers serve calls on stacks that have already grown. More calls at once
// get goroutines of their own.
const streamWorkers = 64

// newGRPC makes a gRPC server for the routes of the given services. The table is
// the only road to a handler: nothing implements the generated server interfaces.
func newGRPC(p *pipeline.Pipeline, routes []pipeline.Route, services []protoreflect.ServiceDescriptor,
	tlsConfig *tls.Config, l Limits, h *health.Server,
) *grpc.Server {
	pool := wipingPool{mem.DefaultBufferPool()}
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec(pool)),
		experimental.BufferPool(pool),
		grpc.MaxRecvMsgSize(hardLimitFactor * l.MaxRequestBytes),
		grpc.MaxConcurrentStreams(l.MaxStreams),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.ConnectionTimeout(l.RequestTimeout),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connWindow),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge: l.MaxConnectionAge, MaxConnectionAgeGrace: l.RequestTimeout,
			Time: time.Minute, Timeout: 20 * time.Second,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return fault.New(fault.UnknownMethod, "") }),
	}
	if tlsConfig != nil {
		options = append(options, grpc.Creds(evidenceCredentials{credentials.NewTLS(tlsConfig)}))
	}
	s := grpc.NewServer(options...)
	healthv1.RegisterHealthServer(s, h)
	for _, d := range services {
		s.RegisterService(serviceDesc(p, routes, d, l), nil)
	}
	return s
}

func serviceDesc(p *pipeline.Pipeline, routes []pipeline.Route, d protoreflect.ServiceDescriptor, l Limits) *grpc.ServiceDesc {
	desc := &grpc.ServiceDesc{
		ServiceName: string(d.FullName()), HandlerType: (*any)(nil), Metadata: d.ParentFile().Path(),
	}
	for i := range routes {
		switch r := &routes[i]; {
		case r.Method.Parent() != d.FullName():
		case r.Stream:
			desc.Streams = append(desc.Streams, grpc.StreamDesc{
				StreamName: string(r.Method.Name()), Handler: streamHandler(p, r, l), ServerStreams: true,
			})
		default:
			desc.Methods = append(desc.Methods, grpc.MethodDesc{
				MethodName: string(r.Method.Name()), Handler: unaryHandler(p, r, l),
			})
		}
	}
	return desc
}

func streamHandler(p *pipeline.Pipeline, r *pipeline.Route, l Limits) grpc.StreamHandler {
	return func(_ any, stream grpc.ServerStream) error {
		in := incoming{message: r.NewRequest(), limit: l.MaxRequestBytes}
		if err := stream.RecvMsg(&in); err != nil {
			return err // grpc-go has answered
		}
		if in.fault != nil {
			return in.fault
		}
		ctx := stream.Context()
		s := p.Open(r, evidenceOf(ctx), in.message)
		for {
			reply := r.NewReply()
			receipt, err := s.Next(ctx, reply)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				if receipt.Count > 0 {
					stream.SetTrailer(metadata.MD{ReceiptTrailer: {receipt.String()}})
				}
				return err
			}
			if err := stream.SendMsg(outgoing{reply}); err != nil {
				pipeline.WipePlaintext(reply)
				s.Unsent()
				return err
			}
		}
	}
}

func unaryHandler(p *pipeline.Pipeline, r *pipeline.Route, l Limits) grpc.MethodHandler {
	return func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := incoming{message: r.NewRequest(), limit: l.MaxRequestBytes}
		defer pipeline.WipePlaintext(in.message)
		if err := decode(&in); err != nil {
			return nil, err // grpc-go has answered
		}
		if in.fault != nil {
			return nil, in.fault
		}
		reply := r.NewReply()
		receipt, err := p.Serve(ctx, r, evidenceOf(ctx), in.message, reply)
		if receipt.Count > 0 {
			// It fails only outside a handler.
			_ = grpc.SetTrailer(ctx, metadata.MD{ReceiptTrailer: {receipt.String()}})
		}
		if err != nil {
			return nil, err
		}
		return outgoing{reply}, nil
	}
}
