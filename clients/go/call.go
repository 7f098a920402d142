package sallyport

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
)

// ReceiptTrailer is the gRPC trailer that carries a call's receipt.
const ReceiptTrailer = "sallyport-receipt"

// Before attempt n+1 a call waits a random time up to backoffBase·2ⁿ, at most
// backoffMax: full jitter, so that callers who failed together do not come back
// together (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog,
// 2015).
const (
	backoffBase = 50 * time.Millisecond
	backoffMax  = 2 * time.Second
)

// repeatable lists the control methods that have no effect.
var repeatable = []string{
	controlv1.KeyringService_ListTenants_FullMethodName,
	controlv1.KeyringService_GetKeyring_FullMethodName,
	controlv1.KeyringService_ListKeyrings_FullMethodName,
	controlv1.WorkloadService_ListWorkloads_FullMethodName,
	controlv1.WorkloadService_ListRevokedCertificates_FullMethodName,
	controlv1.PolicyService_GetPolicy_FullMethodName,
	controlv1.SecretRoleService_GetSecretRole_FullMethodName,
	controlv1.SecretRoleService_ListSecretRoles_FullMethodName,
	controlv1.SecretRoleService_ListSources_FullMethodName,
	controlv1.SecretRoleService_GetSourcePolicy_FullMethodName,
	controlv1.LeaseService_InspectLease_FullMethodName,
	controlv1.LeaseService_SearchLeases_FullMethodName,
}

// mayRepeat reports whether a method can be called twice where once was meant. The
// whole data plane can: its methods have no effect but their reply and record.
func mayRepeat(method string) bool {
	return strings.HasPrefix(method, "/"+datav1.DataService_ServiceDesc.ServiceName+"/") || slices.Contains(repeatable, method)
}

// caller is what every call of a connection goes through.
type caller struct {
	timeout   time.Duration
	attempts  int
	onReceipt func(ctx context.Context, method, receipt string)
	handshake *handshaker
	conns     conns
}

// intercept implements grpc.UnaryClientInterceptor. Every error is an *Error.
func (c *caller) intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
	invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	var trailer metadata.MD
	opts = append(opts, grpc.Trailer(&trailer))
	for attempt := 1; ; attempt++ {
		trailer = nil
		err := invoke(ctx, method, req, reply, cc, opts...)
		receipt := receiptIn(trailer)
		if receipt != "" && c.onReceipt != nil {
			c.onReceipt(ctx, method, receipt)
		}
		if err == nil {
			return nil
		}
		e := fromCall(err, receipt)
		if attempt >= c.attempts || !c.again(e, method) || !wait(ctx, attempt) {
			return e
		}
	}
}

// again reports whether a call that failed is to be tried again. A certificate
// that lost its worth while the connection was open is a reason to make another
// connection, if there is a new certificate by now.
func (c *caller) again(e *Error, method string) bool {
	switch e.Reason {
	case CertificateExpired, CertificateRevoked, CertificateUntrusted:
		if !c.handshake.renewed() {
			return false
		}
		c.conns.close()
		return true // the gateway did nothing, whatever the method
	default:
		return e.Reason.Temporary() && mayRepeat(method)
	}
}

// wait waits before the next attempt. It is false if the deadline or the caller
// leaves no time for one.
func wait(ctx context.Context, attempt int) bool {
	d := rand.N(min(backoffBase<<min(attempt-1, 16), backoffMax))
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func receiptIn(trailer metadata.MD) string {
	if v := trailer.Get(ReceiptTrailer); len(v) == 1 {
		return v[0]
	}
	return ""
}

// conns are the open connections of a client.
type conns struct {
	mu   sync.Mutex
	open map[*conn]struct{}
}

type conn struct {
	net.Conn
	owner *conns
}

// dial implements the dialler of grpc.WithContextDialer.
func (s *conns) dial(ctx context.Context, addr string) (net.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*conn]struct{}{}
	}
	c := &conn{raw, s}
	s.open[c] = struct{}{}
	return c, nil
}

// Close closes the connection and forgets it.
func (c *conn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.open, c)
	c.owner.mu.Unlock()
	return c.Conn.Close()
}

// close closes every connection; gRPC makes new ones when they are needed.
func (s *conns) close() {
	s.mu.Lock()
	open := s.open
	s.open = nil
	s.mu.Unlock()
	for c := range open {
		_ = c.Conn.Close()
	}
}
