package sallyport

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	"github.com/sallyport/sallyport/crypto/delivery"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

// Options are how a client calls. Only Credentials is required.
type Options struct {
	Credentials Credentials
	// Timeout bounds a call, all its attempts together, whose context has no
	// deadline. Zero means ten seconds.
	Timeout time.Duration
	// Attempts bounds how often a call is tried. Zero means 4, one means no retry.
	Attempts int
	// MaxRequestBytes is the largest request that the gateway admits; batches are
	// split to stay below it. Zero means 1 MiB, the gateway's default.
	MaxRequestBytes int
	// OnReceipt, if set, is given the receipt of every attempt that has one, refusals
	// included, with the full name of its gRPC method. It is called before the call
	// returns, from the goroutine of the call.
	OnReceipt func(ctx context.Context, method, receipt string)
	// DialOptions are added to those of the connection, for tracing and the like.
	DialOptions []grpc.DialOption
}

func (o Options) withDefaults() Options {
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Attempts <= 0 {
		o.Attempts = 4
	}
	if o.MaxRequestBytes <= 0 {
		o.MaxRequestBytes = 1 << 20
	}
	return o
}

// Client calls the data plane of one gateway, as a workload. It is safe for
// concurrent use.
type Client struct {
	connection
	data            datav1.DataServiceClient
	secrets         secretsv1.SecretServiceClient
	maxRequestBytes int
	// recipient makes, once, the key that secrets are sealed to. It lives as long as the
	// client and never leaves the process.
	recipient func() (*delivery.PrivateKey, error)
}

// Dial makes a client of the gateway at addr, "host:port". It reads the
// credentials and, with [WorkloadAPI], waits for them until ctx ends; the gateway
// is connected to when it is first called.
//
// A connection keeps the certificate of its handshake. The gateway ends
// connections after some minutes, and the next one has the certificate of that
// moment; a certificate that expires before that costs one refused attempt, which
// the caller does not see.
func Dial(ctx context.Context, addr string, o Options) (*Client, error) {
	o = o.withDefaults()
	c, err := connect(ctx, addr, o)
	if err != nil {
		return nil, err
	}
	return &Client{
		c, datav1.NewDataServiceClient(c.grpc), secretsv1.NewSecretServiceClient(c.grpc), o.MaxRequestBytes,
		sync.OnceValues(func() (*delivery.PrivateKey, error) { return delivery.GenerateKey(delivery.MLKEM768X25519) }),
	}, nil
}

// Control calls the control plane of one gateway, as a person or as automation. It
// holds the generated clients; the errors of their calls are an [*Error] too.
// Methods that change something are never tried again by themselves.
type Control struct {
	connection
	Keyrings    controlv1.KeyringServiceClient
	Workloads   controlv1.WorkloadServiceClient
	Policy      controlv1.PolicyServiceClient
	SecretRoles controlv1.SecretRoleServiceClient
	Leases      controlv1.LeaseServiceClient
}

// DialControl is [Dial] for the control plane.
func DialControl(ctx context.Context, addr string, o Options) (*Control, error) {
	c, err := connect(ctx, addr, o.withDefaults())
	if err != nil {
		return nil, err
	}
	return &Control{
		c, controlv1.NewKeyringServiceClient(c.grpc), controlv1.NewWorkloadServiceClient(c.grpc),
		controlv1.NewPolicyServiceClient(c.grpc), controlv1.NewSecretRoleServiceClient(c.grpc),
		controlv1.NewLeaseServiceClient(c.grpc),
	}, nil
}

// connection is what both clients are made of.
type connection struct {
	grpc     *grpc.ClientConn
	identity identity
}

// Close ends the connection. Calls under way fail.
func (c connection) Close() error { return errors.Join(c.grpc.Close(), c.identity.Close()) }

// replyFactor times MaxRequestBytes is the largest reply that is read: envelopes
// are longer than what is in them.
const replyFactor = 4

func connect(ctx context.Context, addr string, o Options) (connection, error) {
	if o.Credentials == nil {
		return connection{}, errors.New("sallyport: no credentials")
	}
	id, err := o.Credentials.open(ctx)
	if err != nil {
		return connection{}, err
	}
	h := &handshaker{identity: id}
	c := &caller{timeout: o.Timeout, attempts: o.Attempts, onReceipt: o.OnReceipt, handshake: h}
	cc, err := grpc.NewClient(addr, append([]grpc.DialOption{
		grpc.WithTransportCredentials(h),
		grpc.WithContextDialer(c.conns.dial),
		grpc.WithChainUnaryInterceptor(c.intercept),
		grpc.WithChainStreamInterceptor(c.interceptStream),
		// Attempts come after milliseconds; a connection that waits a second before it
		// is tried again, as gRPC would have it, fails them all.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: backoffBase, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(max(4<<20, replyFactor*o.MaxRequestBytes))),
		grpc.WithDisableRetry(), // the reason decides, not the status code
	}, o.DialOptions...)...)
	if err != nil {
		return connection{}, errors.Join(fmt.Errorf("sallyport: %w", err), id.Close())
	}
	return connection{cc, id}, nil
}
