package envelope

import (
	"encoding/binary"
	"fmt"

	"github.com/sallyport/sallyport/crypto/binding"
)

// Suite is the construction that sealed a message. Zero is invalid.
type Suite uint8

// The suites of format version 1.
const (
	SuiteStandard      Suite = 0x01
	SuiteCompact       Suite = 0x02
	SuiteDeterministic Suite = 0x03
	SuiteMAC           Suite = 0x04
)

// String returns the name of the suite for logs and metrics.
func (s Suite) String() string {
	switch s {
	case SuiteStandard:
		return "standard"
	case SuiteCompact:
		return "compact"
	case SuiteDeterministic:
		return "deterministic"
	case SuiteMAC:
		return "mac"
	}
	return fmt.Sprintf("suite(%#02x)", uint8(s))
}

// MaxPlaintext is the largest plaintext, or message under a MAC, in bytes:
// everything is held in memory, and larger data belongs in a stream. It lies
// far below the limit of GCM (2^36-32 bytes, NIST SP 800-38D section 5.2.1.1).
const MaxPlaintext = 64 << 20

// The first bytes of an envelope. 0xF5 and 0xF6 occur nowhere in UTF-8, so no
// text is mistaken for an envelope, and differ, so the first byte tells the
// two forms apart.
const (
	magic         = "\xf5SP"
	formatVersion = 0x01
	compactMagic  = 0xF6
)

// Lengths and offsets in bytes; the layouts are drawn at sealStandard,
// sealCompact, SIVKey.Seal and MACKey.Compute.
const (
	offSuite     = 4
	offFlags     = 5
	offNamesLen  = 6
	offKeyring   = 8
	offVersion   = 24
	offLease     = 28
	offMessageID = 40
	offNames     = 60

	messageIDLen  = 20
	commitmentLen = 32
	gcmTagLen     = 16

	offCompactVersion   = 2
	compactHeaderLen    = 6 // magic, suite, version
	compactMessageIDLen = 16
	offCompactBody      = compactHeaderLen + compactMessageIDLen
	hmacTagLen          = 32
	sivLen              = 16
)

// Overhead of each suite: the length of an envelope without its plaintext and
// its context's names, in bytes.
const (
	OverheadStandard      = offNames + commitmentLen + gcmTagLen
	OverheadCompact       = offCompactBody + hmacTagLen
	OverheadDeterministic = compactHeaderLen + sivLen
	OverheadMAC           = compactHeaderLen + hmacTagLen
)

// MaxSize is the length of the largest envelope, in bytes.
const MaxSize = OverheadStandard + binding.MaxNamesBlockLen + MaxPlaintext

// SealedSize returns the length in bytes of the envelope of an n-byte
// plaintext under c. It is 0 for a suite that does not exist.
func SealedSize(suite Suite, c binding.Context, n int) int {
	switch suite {
	case SuiteStandard:
		return OverheadStandard + len(c.NamesBlock()) + n
	case SuiteCompact:
		return OverheadCompact + n
	case SuiteDeterministic:
		return OverheadDeterministic + n
	case SuiteMAC:
		return OverheadMAC
	}
	return 0
}

// Message is a view of the bytes of an envelope that [Parse] accepted. It
// shares their memory, which must not change while the view is used. Nothing
// that it says is authenticated. The zero Message opens with no key.
type Message struct {
	raw   []byte
	suite Suite
	body  int // offset of the ciphertext, or of the tag of a MAC
}

// Parse reads the header of an envelope that fills raw. It is total, does not
// allocate, and never guesses: what it does not know it refuses, with an error
// in the family of [ErrFormat].
func Parse(raw []byte) (Message, error) {
	switch {
	case len(raw) == 0:
		return Message{}, ErrMalformed
	case raw[0] == magic[0]:
		return parseStandard(raw)
	case raw[0] == compactMagic:
		return parseCompact(raw)
	}
	return Message{}, ErrMalformed
}

func parseStandard(raw []byte) (Message, error) {
	// What kind of envelope it is comes first, so that an unknown kind is
	// reported as such whatever its length would have to be.
	switch {
	case len(raw) < offSuite || string(raw[:len(magic)]) != magic:
		return Message{}, ErrMalformed
	case raw[len(magic)] != formatVersion:
		return Message{}, ErrUnknownVersion
	case len(raw) <= offSuite:
		return Message{}, ErrMalformed
	case Suite(raw[offSuite]) != SuiteStandard:
		return Message{}, ErrUnknownSuite
	case len(raw) <= offFlags:
		return Message{}, ErrMalformed
	case raw[offFlags] != 0:
		return Message{}, ErrUnknownFlag
	case len(raw) < OverheadStandard:
		return Message{}, ErrMalformed
	}
	namesLen := int(binary.BigEndian.Uint16(raw[offNamesLen:]))
	if len(raw)-OverheadStandard < namesLen {
		return Message{}, ErrMalformed
	}
	m := Message{raw: raw, suite: SuiteStandard, body: offNames + namesLen + commitmentLen}
	keyring, _ := m.Keyring()
	if keyring == (KeyringID{}) || m.Version() == 0 || m.PlaintextSize() > MaxPlaintext {
		return Message{}, ErrMalformed
	}
	if binding.CheckNames(m.names()) != nil {
		return Message{}, ErrMalformed
	}
	return m, nil
}

func parseCompact(raw []byte) (Message, error) {
	if len(raw) < 2 {
		return Message{}, ErrMalformed
	}
	m := Message{raw: raw, suite: Suite(raw[1])}
	var fits bool
	switch m.suite {
	case SuiteCompact:
		m.body, fits = offCompactBody, len(raw) >= OverheadCompact
	case SuiteDeterministic:
		m.body, fits = compactHeaderLen, len(raw) >= OverheadDeterministic
	case SuiteMAC:
		m.body, fits = compactHeaderLen, len(raw) == OverheadMAC
	default:
		return Message{}, ErrUnknownSuite
	}
	if !fits || m.Version() == 0 || m.PlaintextSize() > MaxPlaintext {
		return Message{}, ErrMalformed
	}
	return m, nil
}

// Suite returns the suite, or 0 for the zero Message.
func (m Message) Suite() Suite { return m.suite }

// Keyring returns the keyring that the header names. ok is false for suites
// that do not carry it; the keyring must then be known from where the message
// was stored.
func (m Message) Keyring() (id KeyringID, ok bool) {
	if m.suite != SuiteStandard {
		return KeyringID{}, false
	}
	return KeyringID(m.raw[offKeyring:offVersion]), true
}

// Version returns the version of the keyring that the header names.
func (m Message) Version() uint32 {
	switch m.suite {
	case 0:
		return 0
	case SuiteStandard:
		return binary.BigEndian.Uint32(m.raw[offVersion:])
	default:
		return binary.BigEndian.Uint32(m.raw[offCompactVersion:])
	}
}

// Lease returns the lease that the header names: zero for the gateway's own
// key, which is the only one that suites without the field use.
func (m Message) Lease() LeaseID {
	if m.suite != SuiteStandard {
		return LeaseID{}
	}
	return LeaseID(m.raw[offLease:offMessageID])
}

// ContextNames returns the names, without values, of the context under which
// the header says the message was sealed. ok is false for suites that do not
// carry them.
func (m Message) ContextNames() (names []string, ok bool) {
	if m.suite != SuiteStandard {
		return nil, false
	}
	names, _ = binding.ParseNames(m.names()) // Parse has checked the block
	return names, true
}

// PlaintextSize returns the length in bytes of the plaintext; it is 0 for a
// MAC, which carries none.
func (m Message) PlaintextSize() int {
	switch m.suite {
	case SuiteStandard:
		return len(m.raw) - m.body - gcmTagLen
	case SuiteCompact:
		return len(m.raw) - OverheadCompact
	case SuiteDeterministic:
		return len(m.raw) - OverheadDeterministic
	default:
		return 0
	}
}

// Overhead returns the length in bytes of everything but the ciphertext.
func (m Message) Overhead() int { return len(m.raw) - m.PlaintextSize() }

// Bytes returns the envelope itself, the memory given to Parse.
func (m Message) Bytes() []byte { return m.raw }

// names returns the names block of a message of the standard suite.
func (m Message) names() []byte { return m.raw[offNames : m.body-commitmentLen] }
