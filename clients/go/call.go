package sallyport

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
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

// repeatable lists the methods beside DataService that have no effect, or the same one
// if it comes twice.
var repeatable = []string{
	secretsv1.SecretService_RenewLease_FullMethodName,
	secretsv1.SecretService_RevokeLease_FullMethodName,
	secretsv1.SecretService_GetLease_FullMethodName,
	secretsv1.SecretService_ListLeases_FullMethodName,
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

// mayRepeat reports whether a method can be called twice where once was meant. All of
// DataService can: its methods have no effect but their reply and record.
//
// LeaseSecret is between the two. What the gateway says that it failed has left no
// credential behind, and what never left here neither. But if the answer was lost there
// may be a credential that nobody has, and a second one would make it two.
func mayRepeat(method string, e *Error, sent bool) bool {
	if method == secretsv1.SecretService_LeaseSecret_FullMethodName {
		return e.Reason != Unavailable || !sent
	}
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
	var server peer.Peer
	opts = append(opts, grpc.Trailer(&trailer), grpc.Peer(&server))
	for attempt := 1; ; attempt++ {
		trailer, server = nil, peer.Peer{}
		err := invoke(ctx, method, req, reply, cc, opts...)
		receipt := receiptIn(trailer)
		if receipt != "" && c.onReceipt != nil {
			c.onReceipt(ctx, method, receipt)
		}
		if err == nil {
			return nil
		}
		e := fromCall(err, receipt)
		// gRPC names the peer as soon as there is a stream to send the request on.
		sent := server.Addr != nil
		if attempt >= c.attempts || !c.again(ctx, e, method, sent) || !wait(ctx, rand.N(min(backoffBase<<min(attempt-1, 16), backoffMax))) {
			return e
		}
	}
}

// again reports whether a call that failed is to be tried again. A certificate
// that lost its worth while the connection was open is a reason to make another
// connection, if there is a new certificate by now.
func (c *caller) again(ctx context.Context, e *Error, method string, sent bool) bool {
	if c.reconnected(e) {
		return true // the gateway did nothing, whatever the method
	}
	return ctx.Value(patient{}) == nil && e.Reason.Temporary() && mayRepeat(method, e, sent)
}

// patient is the key of a context whose owner tries again at his own pace.
type patient struct{}

// reconnected reports whether e says that the certificate of the connection is worth
// nothing any more while there is a new one by now. Then it has closed all connections.
func (c *caller) reconnected(e *Error) bool {
	switch e.Reason {
	case CertificateExpired, CertificateRevoked, CertificateUntrusted:
	default:
		return false
	}
	if !c.handshake.renewed() {
		return false
	}
	c.conns.close()
	return true
}

// wait waits before the next attempt. It is false if the deadline or the caller
// leaves no time for one.
func wait(ctx context.Context, d time.Duration) bool {
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

// interceptStream implements grpc.StreamClientInterceptor, for streams of replies. They
// have no deadline of their own and are not tried again here.
func (c *caller) interceptStream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
	open grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, fromCall(err, "")
	}
	return &stream{s, c, method}, nil
}

// stream makes an *Error of every error but io.EOF, and hands over receipts.
type stream struct {
	grpc.ClientStream
	caller *caller
	method string
}

// RecvMsg implements grpc.ClientStream.
func (s *stream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	var receipt string
	if err != nil {
		receipt = receiptIn(s.Trailer())
	} else if r, ok := m.(interface{ GetReceipt() string }); ok {
		receipt = r.GetReceipt()
	}
	if receipt != "" && s.caller.onReceipt != nil {
		s.caller.onReceipt(s.Context(), s.method, receipt)
	}
	if err == nil {
		return nil
	}
	e := fromCall(err, receipt)
	s.caller.reconnected(e) // for whoever opens the next one
	return e
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
