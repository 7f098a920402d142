package sallyport

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
)

// MaxBatchItems is how many items the gateway takes in one request.
const MaxBatchItems = 4096

// EncryptItem is one plaintext of a batch and its encryption context.
type EncryptItem struct {
	Plaintext []byte `json:"-"`
	Context   map[string]string
}

// Format implements fmt.Formatter, for every verb: without the plaintext.
func (i EncryptItem) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "{%d bytes of plaintext}", len(i.Plaintext))
}

// DecryptItem is one envelope of a batch and its encryption context.
type DecryptItem struct {
	Ciphertext []byte
	Context    map[string]string
}

// SealResult is what became of one item that was to be encrypted.
type SealResult struct {
	Sealed
	Err error // an *Error, if the item failed
}

// OpenResult is what became of one item that was to be decrypted. It prints and
// marshals without its plaintext.
type OpenResult struct {
	Opened
	Err error // an *Error, if the item failed
}

// BatchEncrypt encrypts many items, in as many requests as it takes. There is one
// result for each item, in order, with the receipt of its request; an item that
// fails fails alone. If a whole request fails, its error is returned, and stands in
// the results of its items and of those that were not sent after it.
func (k Keyring) BatchEncrypt(ctx context.Context, items []EncryptItem) ([]SealResult, error) {
	messages := make([]*datav1.BatchEncryptRequest_Item, len(items))
	for i, item := range items {
		messages[i] = &datav1.BatchEncryptRequest_Item{Plaintext: item.Plaintext, Context: item.Context}
	}
	send := func(part []*datav1.BatchEncryptRequest_Item) ([]SealResult, error) {
		reply, receipt, err := call(ctx, k.client.data.BatchEncrypt, &datav1.BatchEncryptRequest{
			Name: k.name, Items: part, Format: k.format,
		})
		results := make([]SealResult, len(reply.GetResults()))
		for i, r := range reply.GetResults() {
			results[i].Err = itemError(r.GetError(), receipt)
			results[i].Sealed = Sealed{Ciphertext: r.GetCiphertext(), Receipt: receipt}
			if results[i].Err == nil {
				results[i].Version = reply.GetVersion()
			}
		}
		return results, err
	}
	return batch(messages, k.budget(), send, func(err error) SealResult { return SealResult{Err: err} })
}

// BatchDecrypt decrypts many envelopes. See [Keyring.BatchEncrypt] for the results.
func (k Keyring) BatchDecrypt(ctx context.Context, items []DecryptItem) ([]OpenResult, error) {
	messages := make([]*datav1.BatchDecryptRequest_Item, len(items))
	for i, item := range items {
		messages[i] = &datav1.BatchDecryptRequest_Item{Ciphertext: item.Ciphertext, Context: item.Context}
	}
	send := func(part []*datav1.BatchDecryptRequest_Item) ([]OpenResult, error) {
		reply, receipt, err := call(ctx, k.client.data.BatchDecrypt, &datav1.BatchDecryptRequest{Name: k.name, Items: part})
		results := make([]OpenResult, len(reply.GetResults()))
		for i, r := range reply.GetResults() {
			results[i] = OpenResult{Opened{r.GetPlaintext(), r.GetVersion(), receipt}, itemError(r.GetError(), receipt)}
		}
		return results, err
	}
	return batch(messages, k.budget(), send, func(err error) OpenResult { return OpenResult{Err: err} })
}

// BatchRewrap moves many envelopes to the primary version. See
// [Keyring.BatchEncrypt] for the results.
func (k Keyring) BatchRewrap(ctx context.Context, items []DecryptItem) ([]SealResult, error) {
	messages := make([]*datav1.BatchRewrapRequest_Item, len(items))
	for i, item := range items {
		messages[i] = &datav1.BatchRewrapRequest_Item{Ciphertext: item.Ciphertext, Context: item.Context}
	}
	send := func(part []*datav1.BatchRewrapRequest_Item) ([]SealResult, error) {
		reply, receipt, err := call(ctx, k.client.data.BatchRewrap, &datav1.BatchRewrapRequest{Name: k.name, Items: part})
		results := make([]SealResult, len(reply.GetResults()))
		for i, r := range reply.GetResults() {
			results[i].Err = itemError(r.GetError(), receipt)
			results[i].Sealed = Sealed{r.GetCiphertext(), 0, r.GetPreviousVersion(), receipt}
			if results[i].Err == nil {
				results[i].Version = reply.GetVersion()
			}
		}
		return results, err
	}
	return batch(messages, k.budget(), send, func(err error) SealResult { return SealResult{Err: err} })
}

// budget is how many bytes the items of one request may have: what the limit
// leaves beside the name and the format.
func (k Keyring) budget() int {
	rest := proto.Size(&datav1.BatchEncryptRequest{Name: k.name, Format: k.format})
	return k.client.maxRequestBytes - rest
}

// batch sends messages in order, as many at a time as fit, and gathers the results.
func batch[M proto.Message, R any](messages []M, budget int, send func([]M) ([]R, error), failed func(error) R) ([]R, error) {
	results := make([]R, 0, len(messages))
	for len(results) < len(messages) {
		rest := messages[len(results):]
		n := fit(rest, budget)
		if n == 0 {
			results = append(results, failed(&Error{Reason: RequestTooLarge, Message: "the item does not fit in a request"}))
			continue
		}
		part, err := send(rest[:n])
		if err == nil && len(part) != n {
			err = &Error{Reason: Internal, Message: fmt.Sprintf("%d results for %d items", len(part), n)}
		}
		if err != nil {
			for range rest {
				results = append(results, failed(err))
			}
			return results, err
		}
		results = append(results, part...)
	}
	return results, nil
}

// fit is how many of the first messages go into one request.
func fit[M proto.Message](messages []M, budget int) int {
	n := 0
	for n < min(len(messages), MaxBatchItems) {
		budget -= protowire.SizeTag(2) + protowire.SizeBytes(proto.Size(messages[n])) // field "items"
		if budget < 0 {
			break
		}
		n++
	}
	return n
}

func itemError(e *datav1.ItemError, receipt string) error {
	if e == nil {
		return nil
	}
	return &Error{Reason: Reason(e.GetReason()), Message: e.GetMessage(), Receipt: receipt}
}
