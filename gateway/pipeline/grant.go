package pipeline

import (
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport/sallyport/crypto/binding"
	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/identity"
	"github.com/sallyport/sallyport/keys"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
)

// Grant is proof that this call was authenticated, narrowed to the kind of caller
// that the handler is written for, and authorized. The pipeline alone makes one,
// and it ends with the call. What the handler notes on it goes into the record.
type Grant[C identity.Caller] struct {
	call   *call
	caller C
}

// Caller is who calls.
func (g Grant[C]) Caller() C { return g.caller }

// Keyring is the keyring that was authorized.
func (g Grant[C]) Keyring() keys.Name { return g.call.subject.Keyring }

// Context is the encryption context that was authorized.
func (g Grant[C]) Context() binding.Context { return g.call.subject.contexts[0] }

// Item gives the encryption context of item i of a batch, or why the item was
// refused.
func (g Grant[C]) Item(i int) (binding.Context, *fault.Error) {
	s := &g.call.subject
	return s.contexts[i], s.faults[i]
}

// RequestID is the id of the call: 128 random bits, in every record of it.
func (g Grant[C]) RequestID() [16]byte { return g.call.id }

// CertificateKey is the public key that the caller proved to hold the private half of.
func (g Grant[C]) CertificateKey() crypto.PublicKey { return g.call.shown.PublicKey() }

// NoteLease records the lease that was issued or acted upon, and when the credential
// ends if the call made or put off that end.
func (g Grant[C]) NoteLease(name string, expires time.Time) {
	g.call.record.Lease = name
	if !expires.IsZero() {
		g.call.record.LeaseExpireTime = timestamppb.New(expires)
	}
}

// OnUnanswered says what to undo if the reply does not leave: the record cannot be
// written, the caller went away, or it is not let in any more. It is called at most
// once, after the handler.
func (g Grant[C]) OnUnanswered(undo func()) { g.call.undo = undo }

// Again says of a streaming method when it has more to answer: at the given time, or
// when something comes on the channel, which may be nil. Without it the stream ends
// with this reply.
func (g Grant[C]) Again(at time.Time, changed <-chan struct{}) {
	g.call.again = again{at, changed}
}

// Scheduled is the time that the handler gave to Again for the reply before; the zero
// time for the first reply of a stream.
func (g Grant[C]) Scheduled() time.Time { return g.call.scheduled }

// NoteVersion records the key version that was used.
func (g Grant[C]) NoteVersion(v uint32) { g.call.record.Version = v }

// NoteSizes records the bytes of input and output.
func (g Grant[C]) NoteSizes(in, out int) {
	g.call.record.InputSize, g.call.record.OutputSize = uint64(in), uint64(out)
}

// NoteEnvelope records the digest of an envelope or tag that went in or out.
func (g Grant[C]) NoteEnvelope(envelope []byte) {
	g.call.digest = sha256.Sum256(envelope)
	g.call.record.EnvelopeDigest = g.call.digest[:]
}

// NoteItem records the outcome of item i of a batch: its envelope (nil if it has
// none), its version, the bytes of its plaintext, and its fault or nil.
func (g Grant[C]) NoteItem(i int, envelope []byte, version uint32, size int, f *fault.Error) {
	s := &g.call.subject
	noted := &s.noted[i]
	noted.item.Version, noted.item.Size = version, uint64(size)
	if len(envelope) > 0 {
		noted.digest = sha256.Sum256(envelope)
		noted.item.EnvelopeDigest = noted.digest[:]
	}
	if f != nil {
		noted.item.Reason = f.Reason.String()
	}
	noted.item.Context = g.call.pipeline.pseudonyms.hash(nil, s.Keyring.Tenant, s.contexts[i])
	if g.call.record.Items == nil {
		g.call.record.Items = make([]*auditv1.Item, 0, len(s.noted))
	}
	g.call.record.Items = append(g.call.record.Items, &noted.item)
}

// notedItem is what the record says of an item, with its digest in one piece.
type notedItem struct {
	item   auditv1.Item
	digest [sha256.Size]byte
}

// call is one request on the road. Calls are pooled; nothing may keep one.
type call struct {
	pipeline *Pipeline
	route    *Route
	caller   identity.Caller
	subject  Subject
	started  time.Time

	shown *authn.Evidence
	undo  func()
	again again
	// scheduled is the again of the stream's reply before.
	scheduled time.Time

	record   auditv1.Record
	time     timestamppb.Timestamp
	id       [16]byte
	evidence [32]byte
	digest   [32]byte
}

// again is when a stream goes on; the zero again is never.
type again struct {
	at      time.Time
	changed <-chan struct{}
}

// requestID is the text form of the call's id.
func (c *call) requestID() string { return hex.EncodeToString(c.id[:]) }

// pseudonyms hashes context values so that the log can answer "was this record
// touched?" to those who hold the key, and tells others nothing.
type pseudonyms struct{ pool sync.Pool }

func newPseudonyms(key []byte) *pseudonyms {
	k := append([]byte(nil), key...)
	return &pseudonyms{sync.Pool{New: func() any { return &hasher{mac: hmac.New(sha256.New, k)} }}}
}

type hasher struct {
	mac hash.Hash
	buf []byte
	sum [sha256.Size]byte
}

// valueHashLen is the length of a ContextHash's value_hash.
const valueHashLen = 16

// hash appends the names and keyed hashes of a context's pairs.
func (p *pseudonyms) hash(dst []*auditv1.ContextHash, t keys.Tenant, c binding.Context) []*auditv1.ContextHash {
	if c.Len() == 0 {
		return dst
	}
	h := p.pool.Get().(*hasher)
	defer p.pool.Put(h)
	for name, value := range c.Pairs() {
		h.mac.Reset()
		h.buf = binding.AppendField(h.buf[:0], "sallyport/audit/context/v1")
		h.buf = binding.AppendField(h.buf, string(t))
		h.buf = binding.AppendField(h.buf, name)
		h.buf = binding.AppendField(h.buf, value)
		h.mac.Write(h.buf)
		sum := h.mac.Sum(h.sum[:0])
		dst = append(dst, &auditv1.ContextHash{Name: name, ValueHash: append([]byte(nil), sum[:valueHashLen]...)})
	}
	clear(h.buf)
	return dst
}
