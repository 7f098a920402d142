package envelope

import (
	"errors"
	"fmt"
)

// ErrOpen is the one failure of opening or verifying a message that parsed:
// wrong key, wrong context, wrong header, wrong keyring, version or lease,
// changed or truncated ciphertext. The cause is not told, in the error or by
// another error type, so that nobody can ask about one part of a forgery at a
// time. It does not say that the message is corrupt: presented with the right
// key and context it may open.
var ErrOpen = errors.New("envelope: message does not open with this key and context")

// ErrFormat is in the chain of every error of [Parse] and [DecodeText]. These
// say what the bytes are not, before any key is involved, and never repeat
// input.
var ErrFormat = errors.New("envelope: unreadable")

// The ways in which bytes are not a readable envelope.
var (
	// ErrMalformed: not an envelope, or one cut short, or with a field out of
	// its range.
	ErrMalformed = fmt.Errorf("%w: malformed", ErrFormat)
	// ErrUnknownVersion: an envelope of a format version that this code does
	// not know. A newer release may read it.
	ErrUnknownVersion = fmt.Errorf("%w: unknown format version", ErrFormat)
	// ErrUnknownSuite: a suite that does not exist in this format version.
	ErrUnknownSuite = fmt.Errorf("%w: unknown suite", ErrFormat)
	// ErrUnknownFlag: a flag that this code does not know, so that it cannot
	// know what ignoring it would mean.
	ErrUnknownFlag = fmt.Errorf("%w: unknown flag", ErrFormat)
	// ErrText: not the text form of [EncodeText].
	ErrText = fmt.Errorf("%w: not the text form", ErrFormat)
)

// The ways in which a caller of this package is wrong before any cryptography.
var (
	// ErrTooLarge: the plaintext or message exceeds [MaxPlaintext].
	ErrTooLarge = fmt.Errorf("envelope: larger than %d bytes", MaxPlaintext)
	// ErrSuite: the key cannot seal under the suite that was asked for.
	ErrSuite = errors.New("envelope: key does not serve this suite")
	// ErrScope: an element of the scope is missing or out of its range.
	ErrScope = errors.New("envelope: invalid scope")
	// ErrPrimitive: the primitive given does not have the output of this
	// suite, for example because its Tink keyset is not of output prefix RAW.
	ErrPrimitive = errors.New("envelope: primitive does not fit the suite")
)
