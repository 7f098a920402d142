package sallyport

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sallyport/sallyport/crypto/delivery"
	"github.com/sallyport/sallyport/crypto/secret"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

// ErrUnchanged reports that the version given with [KnownVersion] is still the newest.
// Nothing was leased.
var ErrUnchanged = errors.New("sallyport: the secret is unchanged")

// SecretRole is a handle for one secret role of a gateway, from which the caller leases
// credentials of its own. It is a small value, safe for concurrent use, and making one
// calls nobody: a name that does not exist, or is not allowed, is PERMISSION_DENIED when
// it is used. [Client.Keep] keeps a secret fresh by itself.
type SecretRole struct {
	client *Client
	name   string
}

// SecretRole gives the handle of a role, "tenants/{tenant}/secretRoles/{role}".
func (c *Client) SecretRole(name string) SecretRole { return SecretRole{c, name} }

// Name gives the role's resource name.
func (r SecretRole) Name() string { return r.name }

// LeaseState is where a lease stands: the name of a sallyport.secrets.v1.LeaseState
// without its prefix, where each is explained.
type LeaseState string

// The states of leases.
const (
	LeaseReserved LeaseState = "RESERVED"
	LeaseActive   LeaseState = "ACTIVE"
	LeaseRevoking LeaseState = "REVOKING"
	LeaseEnded    LeaseState = "GONE"
	LeaseStuck    LeaseState = "STUCK"
)

// Lease tells of a lease. It never holds the credential.
type Lease struct {
	Name     string // tenants/{tenant}/secretRoles/{role}/leases/{lease}
	Workload string // the SPIFFE id of the owner
	Source   string // that issued the credential
	State    LeaseState
	// Created, and when the credential ends if it is not renewed, and beyond which no
	// renewal reaches, by the gateway's clock.
	Created, Expires, MaxExpires time.Time
	Renewable                    bool
	Revocable                    bool   // if not, the credential works until Expires
	Version                      uint64 // of a versioned secret; 0 for others
	Receipt                      string // proves that the call is on record
}

func leaseOf(l *secretsv1.Lease, receipt string) Lease {
	return Lease{
		Name: l.GetName(), Workload: l.GetWorkload(), Source: l.GetSource(),
		State:   LeaseState(strings.TrimPrefix(l.GetState().String(), "LEASE_STATE_")),
		Created: l.GetCreateTime().AsTime(), Expires: l.GetExpireTime().AsTime(), MaxExpires: l.GetMaxExpireTime().AsTime(),
		Renewable: l.GetRenewable(), Revocable: l.GetRevocable(), Version: l.GetVersion(), Receipt: receipt,
	}
}

// LeaseOption changes what is asked for.
type LeaseOption func(*leaseOptions)

type leaseOptions struct {
	lifetime time.Duration
	known    uint64
	plain    bool
}

// Lifetime asks for a credential that lives that long. Without it the role's default
// holds; more than the role's maximum is LIFETIME_EXCEEDED.
func Lifetime(d time.Duration) LeaseOption { return func(o *leaseOptions) { o.lifetime = d } }

// KnownVersion says which version of a versioned secret the caller has. If it is still
// the newest, Lease returns [ErrUnchanged].
func KnownVersion(v uint64) LeaseOption { return func(o *leaseOptions) { o.known = v } }

// Plain asks for a value that TLS alone protects on its way. By default it is sealed to
// a key that never leaves this process, so that what ends TLS or keeps bodies in between
// sees ciphertext.
func Plain() LeaseOption { return func(o *leaseOptions) { o.plain = true } }

// Lease leases a credential. The caller wipes it when it is not needed any more, and
// revokes the lease. The error is UNEXPECTED_ANSWER or DECRYPTION_FAILED if the answer
// is not for what was asked; the lease is revoked then, as far as it can be.
//
// A call whose answer was lost is not repeated: there may be a credential that nobody
// has, which ends with its lifetime.
func (r SecretRole) Lease(ctx context.Context, options ...LeaseOption) (*Secret, error) {
	var o leaseOptions
	for _, set := range options {
		set(&o)
	}
	to, err := r.recipient(o.plain)
	if err != nil {
		return nil, err
	}
	req := &secretsv1.LeaseSecretRequest{Name: r.name, Recipient: to, KnownVersion: o.known, Lifetime: lifetimeOf(o.lifetime)}
	asked := time.Now()
	reply, receipt, err := call(ctx, r.client.secrets.LeaseSecret, req)
	switch {
	case err != nil:
		return nil, err
	case reply.GetUnchanged() && o.known != 0:
		return nil, ErrUnchanged
	}
	l := leaseOf(reply.GetLease(), receipt)
	fields, err := r.open(l, o.plain, reply)
	if err != nil {
		r.discard(ctx, l)
		return nil, err
	}
	return newSecret(l, asked, fields), nil
}

// Renew puts off the end of one of the caller's leases of the role, by lifetime from
// now, or by the lifetime that it was issued with if that is 0. The true new end, which
// may be earlier, is in the result. LEASE_NOT_RENEWABLE and LEASE_GONE say to lease anew.
func (r SecretRole) Renew(ctx context.Context, lease string, lifetime time.Duration) (Lease, error) {
	return r.about(lease, func() (*secretsv1.Lease, string, error) {
		return call(ctx, r.client.secrets.RenewLease, &secretsv1.RenewLeaseRequest{Name: lease, Lifetime: lifetimeOf(lifetime)})
	})
}

// Revoke ends one of the caller's leases of the role. It succeeds when the ending is
// durably decided, and for what has ended already; the state tells whether the
// credential has stopped to work.
func (r SecretRole) Revoke(ctx context.Context, lease string) (Lease, error) {
	return r.about(lease, func() (*secretsv1.Lease, string, error) {
		return call(ctx, r.client.secrets.RevokeLease, &secretsv1.RevokeLeaseRequest{Name: lease})
	})
}

// Get tells of one of the caller's leases of the role.
func (r SecretRole) Get(ctx context.Context, lease string) (Lease, error) {
	return r.about(lease, func() (*secretsv1.Lease, string, error) {
		return call(ctx, r.client.secrets.GetLease, &secretsv1.GetLeaseRequest{Name: lease})
	})
}

// about does something with a lease, and checks that it is the role's and that the
// answer is about it.
func (r SecretRole) about(lease string, do func() (*secretsv1.Lease, string, error)) (Lease, error) {
	if !r.owns(lease) {
		return Lease{}, &Error{Reason: InvalidArgument, Message: "not the name of a lease of " + r.name}
	}
	reply, receipt, err := do()
	if err != nil {
		return Lease{}, err
	}
	if reply.GetName() != lease {
		return Lease{}, &Error{Reason: UnexpectedAnswer, Message: "the answer is about another lease", Receipt: receipt}
	}
	return leaseOf(reply, receipt), nil
}

// List gives the caller's leases of the role that have not ended.
func (r SecretRole) List(ctx context.Context) ([]Lease, error) {
	tenant, _, _ := strings.Cut(r.name, "/secretRoles/")
	req := &secretsv1.ListLeasesRequest{Parent: tenant, PageSize: 1000}
	var leases []Lease
	for {
		page, receipt, err := call(ctx, r.client.secrets.ListLeases, req)
		if err != nil {
			return nil, err
		}
		for _, l := range page.GetLeases() {
			if r.owns(l.GetName()) {
				leases = append(leases, leaseOf(l, receipt))
			}
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return leases, nil
		}
	}
}

// owns reports whether a name is that of a lease of the role.
func (r SecretRole) owns(lease string) bool {
	id, ok := strings.CutPrefix(lease, r.name+"/leases/")
	raw, err := hex.DecodeString(id)
	return ok && err == nil && len(raw) == 16
}

// recipient says whom a value is to be sealed to; nobody, if it is asked for as it is.
func (r SecretRole) recipient(plain bool) (*secretsv1.Recipient, error) {
	if plain {
		return nil, nil
	}
	key, err := r.client.recipient()
	if err != nil {
		return nil, &Error{Reason: Internal, Message: err.Error(), cause: err}
	}
	return &secretsv1.Recipient{Kem: secretsv1.Kem(key.KEM()), PublicKey: key.PublicKey()}, nil
}

// answer is a reply with a value.
type answer interface {
	GetPlaintext() *secretsv1.SecretFields
	GetSealed() *secretsv1.SealedSecret
}

// open takes the value out of an answer, if that is for what was asked. What is sealed
// is bound to the lease and its owner; that it is a lease of this role is for the
// recipient to check, or a gateway in the middle could answer with another secret.
func (r SecretRole) open(l Lease, plain bool, a answer) (*secretsv1.SecretFields, error) {
	wrong := func(message string) error {
		wipeFields(a.GetPlaintext())
		return &Error{Reason: UnexpectedAnswer, Message: message, Receipt: l.Receipt}
	}
	switch {
	case !r.owns(l.Name):
		return nil, wrong("the lease is not one of " + r.name)
	case l.Workload == "" || l.Workload != r.client.workload():
		return nil, wrong("the lease is not the caller's")
	case plain && a.GetPlaintext() == nil, !plain && a.GetSealed() == nil:
		return nil, wrong("the value is missing, or not in the form that was asked for")
	case plain:
		return a.GetPlaintext(), nil
	}
	key, err := r.client.recipient()
	if err != nil {
		return nil, wrong(err.Error())
	}
	sealed := a.GetSealed()
	if sealed.GetKem() != secretsv1.Kem(key.KEM()) {
		return nil, wrong("the value is sealed by another mechanism")
	}
	plaintext, err := key.Open(delivery.Binding{Lease: l.Name, Workload: l.Workload}, sealed.GetEnc(), sealed.GetCiphertext())
	if err != nil {
		return nil, &Error{Reason: DecryptionFailed, Message: "the value is not sealed for this lease and this caller", Receipt: l.Receipt, cause: err}
	}
	defer secret.Wipe(plaintext)
	fields := new(secretsv1.SecretFields)
	// Unmarshalling copies each value; nothing else of the message is kept.
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(plaintext, fields); err != nil {
		wipeFields(fields)
		return nil, wrong("the value is malformed") // the cause may quote it
	}
	return fields, nil
}

// discardTimeout bounds revoking what cannot be used.
const discardTimeout = 5 * time.Second

// discard revokes a lease whose value cannot be used, if it is the role's at all. If that
// fails the lease ends with its lifetime.
func (r SecretRole) discard(ctx context.Context, l Lease) {
	if !r.owns(l.Name) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTimeout)
	defer cancel()
	_, _ = r.Revoke(ctx, l.Name)
}

// workload is the SPIFFE id in the client's certificate, or "".
func (c connection) workload() string {
	certificate, err := c.identity.certificate()
	if err != nil || len(certificate.Leaf.URIs) != 1 {
		return ""
	}
	return certificate.Leaf.URIs[0].String()
}

func wipeFields(m *secretsv1.SecretFields) {
	for _, value := range m.GetFields() {
		secret.Wipe(value)
	}
}

func lifetimeOf(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}
