// Package identity says who can call. Humans and workloads are two types that
// nothing converts into each other, so that a function which takes a Workload
// cannot be called for a person.
//
// Both are made by package authn alone, from a private key that was proved on
// the connection; a test of the import walls keeps it so. The zero values are
// nobody.
package identity

// Caller is a Workload or a Human. The set is closed.
type Caller interface {
	// Name is what policy and records call the caller: a SPIFFE id or
	// "operators/{name}".
	Name() string
	// EvidenceDigest is the SHA-256 of the leaf certificate that was proved.
	EvidenceDigest() [32]byte

	sealed()
}

// Workload is a registered, enabled service that proved its X.509-SVID.
type Workload struct{ w *workload }

type workload struct {
	spiffeID     string
	registration string
	automation   bool
	evidence     [32]byte
}

// NewWorkload is for package authn alone.
func NewWorkload(spiffeID, registration string, automation bool, evidence [32]byte) Workload {
	return Workload{&workload{spiffeID, registration, automation, evidence}}
}

// Name is the SPIFFE id.
func (w Workload) Name() string { return w.w.spiffeID }

// Registration is the id of the workload's row in the register.
func (w Workload) Registration() string { return w.w.registration }

// Automation reports whether the register admits the workload to the control
// plane.
func (w Workload) Automation() bool { return w.w.automation }

// EvidenceDigest is the SHA-256 of the SVID.
func (w Workload) EvidenceDigest() [32]byte { return w.w.evidence }

func (Workload) sealed() {}

// Human is a person, by a certificate of the operators' authority.
type Human struct{ h *human }

type human struct {
	name     string
	evidence [32]byte
}

// NewHuman is for package authn alone.
func NewHuman(name string, evidence [32]byte) Human {
	return Human{&human{"operators/" + name, evidence}}
}

// Name is "operators/{name}".
func (h Human) Name() string { return h.h.name }

// EvidenceDigest is the SHA-256 of the certificate.
func (h Human) EvidenceDigest() [32]byte { return h.h.evidence }

func (Human) sealed() {}
