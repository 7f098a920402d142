package audit

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
)

// Signature is an Ed25519 signature (RFC 8032).
type Signature [ed25519.SignatureSize]byte

// Kind says what a signature of the journal is about. The zero Kind is invalid.
type Kind uint8

const (
	// KindBatch: records that became durable together.
	KindBatch Kind = 1
	// KindClose: the end of a segment; the batch is all of its records.
	KindClose Kind = 2
)

// domain separates signatures by purpose. One key signs batches and checkpoints:
// a checkpoint is a signed note, whose text must not hold a NUL byte
// (https://c2sp.org/signed-note), and each of these ends in one.
func (k Kind) domain() string {
	switch k {
	case KindBatch:
		return "sallyport/audit/batch/v1\x00"
	case KindClose:
		return "sallyport/audit/close/v1\x00"
	}
	panic("audit: invalid kind of batch")
}

// Batch is what one signature of the journal covers.
type Batch struct {
	Kind     Kind
	Instance string // the log's name, at most 255 bytes
	Segment  uint64 // the segment's number, from 0
	First    uint64 // sequence number of the first record
	Count    uint32 // number of records
	Prev     Hash   // hash of the frame before, or of the segment's header
	Root     Hash   // RFC 6962 root over the records
}

// AppendPayload appends the bytes that are signed:
//
//	domain || uint8(len(instance)) || instance || segment || first || count || prev || root
//
// where integers are big-endian and 64, 64 and 32 bits long. Every field has a
// fixed length or carries it, so no two batches have the same payload.
func (b *Batch) AppendPayload(dst []byte) []byte {
	dst = append(dst, b.Kind.domain()...)
	dst = append(dst, uint8(len(b.Instance)))
	dst = append(dst, b.Instance...)
	dst = binary.BigEndian.AppendUint64(dst, b.Segment)
	dst = binary.BigEndian.AppendUint64(dst, b.First)
	dst = binary.BigEndian.AppendUint32(dst, b.Count)
	dst = append(dst, b.Prev[:]...)
	return append(dst, b.Root[:]...)
}

// maxPayload bounds a payload, so that it can be built on the stack.
const maxPayload = 25 + 1 + MaxNameSize + 8 + 8 + 4 + 2*sha256.Size

// Sign signs the batch and returns the signature and the hash that the next
// frame names as the one before it.
func (b *Batch) Sign(key PrivateKey) (Signature, Hash) {
	var buf [maxPayload + ed25519.SignatureSize]byte
	payload := b.AppendPayload(buf[:0])
	sig := Signature(key.sign(payload))
	return sig, sha256.Sum256(append(payload, sig[:]...))
}

// Verify reports whether sig is key's signature of the batch.
func (b *Batch) Verify(key PublicKey, sig Signature) bool {
	var buf [maxPayload]byte
	return ed25519.Verify(key.key[:], b.AppendPayload(buf[:0]), sig[:])
}

// FrameHash returns the hash that the next frame names as the one before it:
// SHA-256 of payload || signature. The payload holds the root, and so the hash
// covers every byte of every record.
func (b *Batch) FrameHash(sig Signature) Hash {
	var buf [maxPayload + ed25519.SignatureSize]byte
	return sha256.Sum256(append(b.AppendPayload(buf[:0]), sig[:]...))
}
