// Package localca issues short-lived X.509 client certificates from a certificate
// authority of the gateway's own: a source of secrets that needs no server.
//
// The authority's private key is in a file, wrapped by the gateway's KEK; it is
// unwrapped once, at the start, and lives in memory until the process ends. The
// standard library keeps it in a form that cannot be wiped.
//
// A certificate cannot be revoked: nobody would ask, because there is no list and no
// responder. Its lifetime is the bound, of at most 24 hours, and the package never
// says that a certificate has ended before its time has passed.
package localca

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"time"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/keys"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// Config is what a Source is opened from. Every field is required.
type Config struct {
	// File is what Create made.
	File string
	// KEKs are those that may have wrapped the key.
	KEKs                    []keys.KEK
	Deployment, Environment string
	Now                     func() time.Time
}

// Source issues certificates. It is safe for concurrent use.
type Source struct {
	authority    *x509.Certificate
	authorityPEM []byte
	key          *ecdsa.PrivateKey
	now          func() time.Time
}

var _ lease.Source = (*Source)(nil)

// Open reads the authority's file and unwraps its key. The errors are ErrFormat,
// ErrForeign, ErrUnknownKEK, those of the KEK and those of the file system.
func Open(ctx context.Context, c Config) (*Source, error) {
	f, err := readFile(c.File)
	if err != nil {
		return nil, err
	}
	key, err := f.unwrap(ctx, c)
	if err != nil {
		return nil, err
	}
	return &Source{
		authority:    f.certificate,
		authorityPEM: pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: f.certificate.Raw}),
		key:          key, now: c.Now,
	}, nil
}

// Kind implements lease.Source.
func (*Source) Kind() string { return "localca" }

// Check implements lease.Source.
func (*Source) Check(p *controlv1.SecretParameters) error {
	_, err := parametersOf(p)
	return err
}

// Policy implements lease.Source: there is no server that must allow anything.
func (*Source) Policy([]lease.Role) []*controlv1.SourceDocument { return nil }

// Failure implements lease.Source.
func (s *Source) Failure() error { return s.usable(s.now()) }

// usable refuses when the authority's own certificate is not valid.
func (s *Source) usable(now time.Time) error {
	switch {
	case now.Before(s.authority.NotBefore):
		return fault.New(fault.SourceRefused, "the authority's certificate is not valid yet")
	case !now.Before(s.authority.NotAfter):
		return fault.New(fault.SourceRefused, "the authority's certificate has expired")
	}
	return nil
}

// Prepare implements lease.Source. The anchor fixes the serial number and the end of
// the certificate before there is one.
func (s *Source) Prepare(_ context.Context, o lease.Order) (lease.Ticket, error) {
	p, err := parametersOf(o.Role.Parameters)
	if err != nil {
		return nil, err
	}
	if err := s.usable(o.Now); err != nil {
		return nil, err
	}
	subject, err := subjectOf(p, o)
	if err != nil {
		return nil, err
	}
	end, err := s.end(o)
	if err != nil {
		return nil, err
	}
	return &ticket{
		source: s, anchor: anchor{o.Lease.ID, end}, subject: subject, names: p.GetDnsNames(),
		begin: o.Now.Add(-backdate),
	}, nil
}

// end is when a certificate ends: in whole seconds, never later than was asked for,
// and never after the authority.
func (s *Source) end(o lease.Order) (time.Time, error) {
	lifetime := min(o.Lifetime, o.MaxLifetime, lease.MaxCertificateLifetime)
	if lifetime < lease.MinLifetime {
		return time.Time{}, fault.New(fault.InvalidArgument, "lifetime must be at least one second")
	}
	end := o.Now.Add(lifetime).UTC().Truncate(time.Second)
	if end.After(s.authority.NotAfter) {
		end = s.authority.NotAfter
	}
	return end, nil
}

// Renew implements lease.Source: a certificate's end is signed.
func (*Source) Renew(context.Context, lease.Anchor, time.Duration, time.Time) (time.Time, error) {
	return time.Time{}, fault.New(fault.LeaseNotRenewable, "")
}

// Revoke implements lease.Source. Until the certificate has ended by itself it fails:
// nothing could be done, and to say that something was would be a lie.
func (s *Source) Revoke(_ context.Context, a lease.Anchor) error {
	parsed, err := parseAnchor(a)
	if err != nil {
		return err
	}
	if parsed.lives(s.now()) {
		return fault.New(fault.SourceRefused, "a certificate cannot be revoked: it ends by itself")
	}
	return nil
}

// Inspect implements lease.Source. A certificate that was prepared may not have been
// issued; it counts as alive all the same.
func (s *Source) Inspect(_ context.Context, a lease.Anchor) (lease.Standing, error) {
	parsed, err := parseAnchor(a)
	if err != nil {
		return lease.Standing{}, err
	}
	return lease.Standing{Alive: parsed.lives(s.now()), Until: parsed.end}, nil
}

// Newest implements lease.Source: a certificate has no version.
func (*Source) Newest(context.Context, *controlv1.SecretParameters) (uint64, error) { return 0, nil }
