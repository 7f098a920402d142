package sallyport

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/crypto/secret"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

// ErrNoField reports that a secret has no field of the name that was asked for.
var ErrNoField = errors.New("sallyport: the secret has no such field")

// Secret is a credential that was leased: named fields, "username" and "password" for
// example, and the lease that says how long they work. It does not print and does not
// marshal what is in it, and is safe for concurrent use.
type Secret struct {
	fields map[string]secret.Bytes

	mu    sync.Mutex
	lease Lease
	// asked is when the lease cannot have begun later, by this machine's clock. The
	// gateway's clock may show another time, but the two go at the same speed.
	asked time.Time
}

// newSecret becomes the owner of the values of fields.
func newSecret(l Lease, asked time.Time, fields *secretsv1.SecretFields) *Secret {
	s := &Secret{lease: l, asked: asked, fields: make(map[string]secret.Bytes, len(fields.GetFields()))}
	for name, value := range fields.GetFields() {
		s.fields[name] = secret.Take(value)
	}
	return s
}

// Lease tells of the lease, as of the last that was heard of it.
func (s *Secret) Lease() Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease
}

// Names lists the fields.
func (s *Secret) Names() []string { return slices.Sorted(maps.Keys(s.fields)) }

// Field gives a field. It is wiped with the secret.
func (s *Secret) Field(name string) (secret.Bytes, bool) {
	value, ok := s.fields[name]
	return value, ok
}

// Use calls f with the bytes of a field and returns what f returns. f must not keep or
// change them, nor wipe the secret. Without calling f it fails with [ErrNoField], and
// with [secret.ErrWiped] after Wipe.
func (s *Secret) Use(name string, f func(value []byte) error) error {
	value, ok := s.fields[name]
	if !ok {
		return fmt.Errorf("%w: %q", ErrNoField, name)
	}
	return value.Use(f)
}

// Wipe overwrites the fields. It does not revoke the lease.
func (s *Secret) Wipe() {
	for _, value := range s.fields {
		value.Wipe()
	}
}

// Format implements fmt.Formatter, for every verb: the lease and the fields' names.
func (s *Secret) Format(f fmt.State, _ rune) {
	if s == nil {
		fmt.Fprint(f, "<nil>")
		return
	}
	fmt.Fprintf(f, "{secret of %s, fields %v}", s.Lease().Name, s.Names())
}

// end is when the credential ends at the earliest, by this machine's clock. It keeps
// the monotonic reading, so that a clock that is set does not matter.
func (s *Secret) end() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked.Add(s.lease.Expires.Sub(s.lease.Created))
}

// note remembers what was heard of the lease, and reports whether the end moved.
func (s *Secret) note(l Lease) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	moved := !l.Expires.Equal(s.lease.Expires)
	l.Created = s.lease.Created // asked belongs to it
	s.lease = l
	return moved
}

// successor gives the time for asked of the lease that the gateway made by itself after
// this one, and that arrived at the given time.
func (s *Secret) successor(l Lease, arrived time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if began := s.asked.Add(l.Created.Sub(s.lease.Created)); began.Before(arrived) {
		return began
	}
	return arrived
}
