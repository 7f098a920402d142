package sallyport_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/crypto/delivery"
	"github.com/sallyport/sallyport/gateway/fault"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

const (
	dbRole = "tenants/demo/secretRoles/db"
	app    = "spiffe://test.example/app"
)

// vault is a gateway that leases secrets in memory: it does what the real one promises,
// and in between what a test tells it to. Beside a clock of its own making (package
// synctest) an hour passes in no time.
type vault struct {
	secretsv1.UnimplementedSecretServiceServer

	lifetime, max time.Duration // max is 0 for leases that cannot be renewed
	// hinder, if set, is asked before each call what goes wrong. The number counts the
	// calls of the verb, from 1.
	hinder func(ctx context.Context, verb string, n int) error
	// spoil, if set, changes what is answered with a value.
	spoil func(verb string, l *secretsv1.Lease, sealed *secretsv1.SealedSecret, plain *secretsv1.SecretFields)
	// grant, if set, says what the n-th renewal gets.
	grant func(n int, l *secretsv1.Lease) time.Time
	// watch, if set, is asked before each stream sends what it has to.
	watch func(ctx context.Context, sent int) error

	// mislead, if set, changes what a stream is about to send. It is given the lease that
	// the stream was opened for.
	mislead func(sent int, reply *secretsv1.WatchLeaseResponse, of *secretsv1.Lease, to *secretsv1.Recipient)

	mu      sync.Mutex
	leases  map[string]*fakeLease
	calls   map[string][]time.Time // by verb
	issued  int
	streams int           // that are open
	changed chan struct{} // closed with each change
}

type fakeLease struct {
	*secretsv1.Lease
	revoked     time.Time
	replacement bool // sent by a stream
}

func newVault(lifetime, longest time.Duration) *vault {
	return &vault{
		lifetime: lifetime, max: longest, leases: map[string]*fakeLease{}, calls: map[string][]time.Time{}, changed: make(chan struct{}),
	}
}

// began counts a call.
func (v *vault) began(ctx context.Context, verb string) error {
	v.mu.Lock()
	v.calls[verb] = append(v.calls[verb], time.Now())
	n, hinder := len(v.calls[verb]), v.hinder
	v.mu.Unlock()
	if hinder != nil {
		return hinder(ctx, verb, n)
	}
	return nil
}

// called counts the calls of a verb.
func (v *vault) called(verb string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.calls[verb])
}

// obstruct sets what goes wrong from now on.
func (v *vault) obstruct(hinder func(ctx context.Context, verb string, n int) error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.hinder = hinder
}

func always(r fault.Reason) func(context.Context, string, int) error {
	return func(context.Context, string, int) error { return fault.New(r, "") }
}

// all lists the leases in the order of their issuing.
func (v *vault) all() []fakeLease {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []fakeLease
	for _, name := range slices.Sorted(maps.Keys(v.leases)) {
		l := v.leases[name]
		all = append(all, fakeLease{proto.Clone(l.Lease).(*secretsv1.Lease), l.revoked, l.replacement})
	}
	return all
}

// alive lists the leases that can still be used.
func (v *vault) alive() (names []string) {
	for _, l := range v.all() {
		if l.State == secretsv1.LeaseState_LEASE_STATE_ACTIVE && time.Now().Before(l.GetExpireTime().AsTime()) {
			names = append(names, l.GetName())
		}
	}
	return names
}

func (v *vault) tell() {
	close(v.changed)
	v.changed = make(chan struct{})
}

func (v *vault) issue(role string, lifetime *durationpb.Duration) *secretsv1.Lease {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := v.lifetime
	if lifetime != nil {
		d = lifetime.AsDuration()
	}
	v.issued++
	now := time.Now()
	l := &secretsv1.Lease{
		Name: fmt.Sprintf("%s/leases/%032x", role, v.issued), Workload: app, Source: "fake",
		State: secretsv1.LeaseState_LEASE_STATE_ACTIVE, CreateTime: timestamppb.New(now), ExpireTime: timestamppb.New(now.Add(d)),
		MaxExpireTime: timestamppb.New(now.Add(max(d, v.max))), Renewable: v.max > 0, Revocable: true,
	}
	v.leases[l.Name] = &fakeLease{Lease: l}
	return proto.Clone(l).(*secretsv1.Lease)
}

// value is the credential of a lease.
func value(lease string) string { return "secret-of-" + lease[strings.LastIndexByte(lease, '/')+1:] }

// deliver makes the answer of a lease, as the real gateway does.
func (v *vault) deliver(verb string, l *secretsv1.Lease, to *secretsv1.Recipient) (*secretsv1.SealedSecret, *secretsv1.SecretFields, error) {
	fields := &secretsv1.SecretFields{Fields: map[string][]byte{"username": []byte("u"), "password": []byte(value(l.GetName()))}}
	var sealed *secretsv1.SealedSecret
	if to != nil {
		text, err := proto.Marshal(fields)
		if err != nil {
			return nil, nil, err
		}
		enc, ciphertext, err := delivery.Seal(delivery.KEM(to.GetKem()), to.GetPublicKey(), delivery.Binding{Lease: l.GetName(), Workload: app}, text)
		if err != nil {
			return nil, nil, fault.New(fault.InvalidRecipient, "")
		}
		sealed, fields = &secretsv1.SealedSecret{Kem: to.GetKem(), Enc: enc, Ciphertext: ciphertext}, nil
	}
	if v.spoil != nil {
		v.spoil(verb, l, sealed, fields)
	}
	return sealed, fields, nil
}

func (v *vault) LeaseSecret(ctx context.Context, r *secretsv1.LeaseSecretRequest) (*secretsv1.LeaseSecretResponse, error) {
	_ = grpc.SetTrailer(ctx, metadata.Pairs(sallyport.ReceiptTrailer, "receipt"))
	if err := v.began(ctx, "lease"); err != nil {
		return nil, err
	}
	if r.GetKnownVersion() == 7 {
		return &secretsv1.LeaseSecretResponse{Unchanged: true}, nil
	}
	l := v.issue(r.GetName(), r.GetLifetime())
	reply := &secretsv1.LeaseSecretResponse{Lease: l}
	sealed, plain, err := v.deliver("lease", l, r.GetRecipient())
	if sealed != nil {
		reply.Value = &secretsv1.LeaseSecretResponse_Sealed{Sealed: sealed}
	} else if plain != nil {
		reply.Value = &secretsv1.LeaseSecretResponse_Plaintext{Plaintext: plain}
	}
	return reply, err
}

// find gives the lease, if it is there.
func (v *vault) find(ctx context.Context, verb, name string) (*fakeLease, error) {
	if err := v.began(ctx, verb); err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if l := v.leases[name]; l != nil {
		return l, nil
	}
	return nil, fault.New(fault.NotFound, "")
}

func (v *vault) RenewLease(ctx context.Context, r *secretsv1.RenewLeaseRequest) (*secretsv1.Lease, error) {
	l, err := v.find(ctx, "renew", r.GetName())
	if err != nil {
		return nil, err
	}
	return v.renew(l)
}

func (v *vault) renew(l *fakeLease) (*secretsv1.Lease, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case l.State != secretsv1.LeaseState_LEASE_STATE_ACTIVE || !time.Now().Before(l.ExpireTime.AsTime()):
		return nil, fault.New(fault.LeaseGone, "")
	case !l.Renewable:
		return nil, fault.New(fault.LeaseNotRenewable, "")
	}
	was := proto.Clone(l.Lease).(*secretsv1.Lease)
	if end := time.Now().Add(v.lifetime); end.Before(l.MaxExpireTime.AsTime()) {
		l.ExpireTime = timestamppb.New(end)
	} else {
		l.ExpireTime = l.MaxExpireTime
	}
	if v.grant != nil {
		l.ExpireTime = timestamppb.New(v.grant(len(v.calls["renew"]), was))
	}
	v.tell()
	return proto.Clone(l.Lease).(*secretsv1.Lease), nil
}

func (v *vault) RevokeLease(ctx context.Context, r *secretsv1.RevokeLeaseRequest) (*secretsv1.Lease, error) {
	if _, err := v.find(ctx, "revoke", r.GetName()); err != nil {
		return nil, err
	}
	return v.revoke(r.GetName()), nil
}

// revoke ends a lease, for an operator too.
func (v *vault) revoke(name string) *secretsv1.Lease {
	v.mu.Lock()
	defer v.mu.Unlock()
	l := v.leases[name]
	if l.revoked.IsZero() {
		l.revoked, l.State = time.Now(), secretsv1.LeaseState_LEASE_STATE_GONE
		v.tell()
	}
	return proto.Clone(l.Lease).(*secretsv1.Lease)
}

func (v *vault) GetLease(ctx context.Context, r *secretsv1.GetLeaseRequest) (*secretsv1.Lease, error) {
	l, err := v.find(ctx, "get", r.GetName())
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return proto.Clone(l.Lease).(*secretsv1.Lease), nil
}

// ListLeases has pages of two.
func (v *vault) ListLeases(ctx context.Context, r *secretsv1.ListLeasesRequest) (*secretsv1.ListLeasesResponse, error) {
	if err := v.began(ctx, "list"); err != nil {
		return nil, err
	}
	reply := new(secretsv1.ListLeasesResponse)
	for _, l := range v.all() {
		if !strings.HasPrefix(l.Name, r.GetParent()+"/") || l.Name <= r.GetPageToken() {
			continue
		}
		if len(reply.Leases) == 2 {
			reply.NextPageToken = reply.Leases[1].Name
			break
		}
		reply.Leases = append(reply.Leases, l.Lease)
	}
	return reply, nil
}

// count counts the streams that are open.
func (v *vault) count(more int) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.streams += more
	return v.streams
}

// WatchLease renews or replaces when 60 % of the time are over, as the gateway does.
func (v *vault) WatchLease(r *secretsv1.WatchLeaseRequest, stream grpc.ServerStreamingServer[secretsv1.WatchLeaseResponse]) error {
	ctx := stream.Context()
	l, err := v.find(ctx, "watch", r.GetName())
	if err != nil {
		return err
	}
	first := l.Lease
	v.count(1)
	defer v.count(-1)
	reply := new(secretsv1.WatchLeaseResponse)
	for sent := 0; ; sent++ {
		if v.watch != nil {
			if err := v.watch(ctx, sent); err != nil {
				v.unsent(reply)
				return err
			}
		}
		v.mu.Lock()
		if reply.Lease == nil {
			reply.Lease = proto.Clone(l.Lease).(*secretsv1.Lease)
		}
		changed, left, active := v.changed, time.Until(l.ExpireTime.AsTime()), l.State == secretsv1.LeaseState_LEASE_STATE_ACTIVE
		v.mu.Unlock()
		reply.Receipt = "receipt"
		if v.mislead != nil {
			v.mislead(sent, reply, first, r.GetRecipient())
		}
		if err := stream.Send(reply); err != nil {
			v.unsent(reply)
			return err
		}
		if !active {
			return nil
		}
		reply = new(secretsv1.WatchLeaseResponse)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			continue
		case <-time.After(max(left*3/5, time.Second)):
		}
		if _, err := v.renew(l); err == nil && l.GetMaxExpireTime().AsTime().Sub(l.GetExpireTime().AsTime()) > v.lifetime/4 {
			continue
		}
		if err := v.began(ctx, "replace"); err != nil {
			return err
		}
		next := v.issue(l.Name[:strings.Index(l.Name, "/leases/")], r.GetLifetime())
		v.mu.Lock()
		l = v.leases[next.Name]
		l.replacement = true
		v.mu.Unlock()
		sealed, plain, err := v.deliver("replace", next, r.GetRecipient())
		if err != nil {
			return err
		}
		reply.Lease = next
		if sealed != nil {
			reply.Value = &secretsv1.WatchLeaseResponse_Sealed{Sealed: sealed}
		} else if plain != nil {
			reply.Value = &secretsv1.WatchLeaseResponse_Plaintext{Plaintext: plain}
		}
	}
}

// unsent revokes a replacement that did not leave, as the real gateway does.
func (v *vault) unsent(reply *secretsv1.WatchLeaseResponse) {
	if reply.GetValue() != nil {
		v.revoke(reply.GetLease().GetName())
	}
}

// line is the way to a fake gateway. It is memory, so that package synctest sees that
// everybody waits.
type line struct {
	mu   sync.Mutex
	up   *bufconn.Listener
	a    *authority
	v    secretsv1.SecretServiceServer
	halt func()
}

// connect starts the gateway and gives a client of it.
func (v *vault) connect(t *testing.T, change ...func(*sallyport.Options)) (*sallyport.Client, *line) {
	t.Helper()
	return v.connectAs(t, v, change...)
}

// connectAs is connect with something in front of the fake.
func (v *vault) connectAs(t *testing.T, server secretsv1.SecretServiceServer, change ...func(*sallyport.Options)) (*sallyport.Client, *line) {
	t.Helper()
	l := &line{a: newAuthority(t), v: server}
	l.start()
	t.Cleanup(func() { l.stop() })
	files := l.a.files(t.TempDir(), l.a.issue(app))
	files.ServerName = "localhost"
	return dial(t, "passthrough:///fake", files, append(change, func(o *sallyport.Options) {
		o.DialOptions = append(o.DialOptions, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			l.mu.Lock()
			up := l.up
			l.mu.Unlock()
			return up.DialContext(ctx)
		}))
	})...), l
}

// newServer makes a gRPC server of a fake, which admits pings as the gateway does.
func newServer(a *authority, v secretsv1.SecretServiceServer) *grpc.Server {
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{a.issue("spiffe://test.example/gateway")},
		ClientAuth:   tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13,
	})), grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}))
	secretsv1.RegisterSecretServiceServer(s, v)
	return s
}

// listen serves the fake on a port of loopback, where connections are the client's own.
func (v *vault) listen(a *authority) (addr string) {
	a.t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		a.t.Fatal(err)
	}
	s := newServer(a, v)
	go func() { _ = s.Serve(l) }()
	a.t.Cleanup(s.Stop)
	return l.Addr().String()
}

func (l *line) start() {
	s := newServer(l.a, l.v)
	up := bufconn.Listen(1 << 20)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(up)
	}()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up = up
	l.halt = sync.OnceFunc(func() { s.Stop(); <-served })
}

// stop stops the gateway, and may be called again.
func (l *line) stop() {
	l.mu.Lock()
	halt := l.halt
	l.mu.Unlock()
	halt()
}
