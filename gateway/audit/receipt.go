package audit

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
)

var (
	// ErrReceiptSyntax: the text is not a receipt.
	ErrReceiptSyntax = errors.New("audit: malformed receipt")
	// ErrReceiptSignature: the receipt is of another log, or was not signed by it.
	ErrReceiptSignature = errors.New("audit: receipt is not signed by this log")
)

// Receipt proves, to anyone who has the log's public key, that the log signed a
// batch which contains a record. It does not prove that the record is still
// there: that takes the files (tlog.CheckReceipt).
type Receipt struct {
	Instance string // the log's name
	Segment  uint64 // the journal segment that holds the batch
	First    uint64 // sequence number of the batch's first record
	Count    uint32 // number of records in the batch
	Index    uint32 // place of this record in the batch, from 0
	Record   Hash   // LeafHash of the record's bytes as written
	Prev     Hash   // hash of the frame before the batch
	Path     []Hash // from the record to the batch's root, lowest first

	Signature Signature // of the batch
}

// receiptPrefix carries the version of the format.
const receiptPrefix = "sp-receipt1."

// The lengths of a receipt's parts before and after the instance's name.
const (
	receiptFixed = 8 + 8 + 4 + 4 + 2*sha256.Size
	// typicalReceipt is the size under which String needs no memory but that of
	// its result: a name of 60 bytes and a batch of 4096 records.
	typicalReceipt = 1 + 60 + receiptFixed + 12*sha256.Size + ed25519.SignatureSize
)

// Sequence returns the record's place in the log.
func (r Receipt) Sequence() uint64 { return r.First + uint64(r.Index) }

// Verify checks that key's log signed a batch that contains the record. The
// error is ErrReceiptSignature.
func (r Receipt) Verify(key PublicKey) error {
	root, ok := rootFromPath(r.Record, r.Index, r.Count, r.Path)
	if !ok || r.Instance != key.name {
		return ErrReceiptSignature
	}
	b := Batch{
		Kind: KindBatch, Instance: r.Instance, Segment: r.Segment,
		First: r.First, Count: r.Count, Prev: r.Prev, Root: root,
	}
	if !b.Verify(key, r.Signature) {
		return ErrReceiptSignature
	}
	return nil
}

// String returns the text form: "sp-receipt1." and the unpadded base64url of
//
//	uint8(len(instance)) || instance || segment || first || count || index ||
//	record || prev || path || signature
//
// with big-endian integers of 64, 64, 32 and 32 bits. The length of the path
// follows from count and index.
func (r Receipt) String() string {
	var buf [typicalReceipt]byte
	var text [len(receiptPrefix) + (typicalReceipt*4+2)/3]byte
	b := append(buf[:0], uint8(len(r.Instance)))
	b = append(b, r.Instance...)
	b = binary.BigEndian.AppendUint64(b, r.Segment)
	b = binary.BigEndian.AppendUint64(b, r.First)
	b = binary.BigEndian.AppendUint32(b, r.Count)
	b = binary.BigEndian.AppendUint32(b, r.Index)
	b = append(b, r.Record[:]...)
	b = append(b, r.Prev[:]...)
	for i := range r.Path {
		b = append(b, r.Path[i][:]...)
	}
	b = append(b, r.Signature[:]...)
	return string(base64.RawURLEncoding.AppendEncode(append(text[:0], receiptPrefix...), b))
}

// ParseReceipt reads the text form. It accepts exactly what String writes; the
// error wraps ErrReceiptSyntax. It does not check the signature.
func ParseReceipt(text string) (Receipt, error) {
	b64, ok := strings.CutPrefix(text, receiptPrefix)
	if !ok {
		return Receipt{}, fmt.Errorf("%w: does not begin with %q", ErrReceiptSyntax, receiptPrefix)
	}
	if strings.ContainsAny(b64, "\r\n") { // which package base64 skips
		return Receipt{}, fmt.Errorf("%w: white space", ErrReceiptSyntax)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(b64)
	if err != nil {
		return Receipt{}, fmt.Errorf("%w: not unpadded base64url", ErrReceiptSyntax)
	}
	if len(b) < 1 || len(b) < 1+int(b[0])+receiptFixed {
		return Receipt{}, fmt.Errorf("%w: too short", ErrReceiptSyntax)
	}
	var r Receipt
	n := int(b[0])
	r.Instance, b = string(b[1:1+n]), b[1+n:]
	if !validName(r.Instance) {
		return Receipt{}, fmt.Errorf("%w: invalid instance", ErrReceiptSyntax)
	}
	r.Segment = binary.BigEndian.Uint64(b)
	r.First = binary.BigEndian.Uint64(b[8:])
	r.Count = binary.BigEndian.Uint32(b[16:])
	r.Index = binary.BigEndian.Uint32(b[20:])
	r.Record, r.Prev = Hash(b[24:56]), Hash(b[56:88])
	b = b[receiptFixed:]
	if r.Index >= r.Count || r.First > math.MaxUint64-uint64(r.Count) {
		return Receipt{}, fmt.Errorf("%w: no such place in the batch", ErrReceiptSyntax)
	}
	steps := pathLen(r.Index, r.Count)
	if len(b) != steps*sha256.Size+ed25519.SignatureSize {
		return Receipt{}, fmt.Errorf("%w: wrong length", ErrReceiptSyntax)
	}
	for range steps {
		r.Path = append(r.Path, Hash(b))
		b = b[sha256.Size:]
	}
	r.Signature = Signature(b)
	return r, nil
}
