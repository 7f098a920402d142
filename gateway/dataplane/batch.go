package dataplane

import (
	"context"

	"github.com/sallyport/sallyport/crypto/envelope"
	"github.com/sallyport/sallyport/crypto/secret"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/pipeline"
	"github.com/sallyport/sallyport/keys"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
)

// outcome is what became of one item.
type outcome struct {
	envelope []byte // what went in or came out, for the record
	version  uint32
	size     int // bytes of plaintext
	err      error
}

// each runs act on every item that was authorized, and records every item.
func each(g Grant, n int, act func(i int) outcome, failed func(i int, e *datav1.ItemError)) {
	for i := range n {
		_, f := g.Item(i)
		var o outcome
		if f == nil {
			o = act(i)
			if o.err != nil {
				f = pipeline.DataPlaneReason(o.err)
			}
		}
		if f != nil {
			failed(i, itemError(f))
		}
		g.NoteItem(i, o.envelope, o.version, o.size, f)
	}
}

func itemError(f *fault.Error) *datav1.ItemError {
	return &datav1.ItemError{Reason: f.Reason.String(), Message: f.Message()}
}

func (p *Plane) batchEncrypt(ctx context.Context, g Grant, req *datav1.BatchEncryptRequest, reply *datav1.BatchEncryptResponse) error {
	suite, err := suiteOf(req.GetFormat())
	if err != nil {
		return err
	}
	h, err := p.Keys.Sealing(ctx, g.Keyring(), keys.PurposeAEAD)
	if err != nil {
		return err
	}
	items := req.GetItems()
	reply.Version = h.Version()
	reply.Results = make([]*datav1.BatchEncryptResponse_Result, len(items))
	results := make([]datav1.BatchEncryptResponse_Result, len(items))
	size := 0
	for i := range items {
		c, _ := g.Item(i)
		size += envelope.SealedSize(suite, c, len(items[i].GetPlaintext()))
	}
	slab := make([]byte, 0, size) // one piece of memory for all envelopes
	each(g, len(items), func(i int) outcome {
		reply.Results[i] = &results[i]
		c, _ := g.Item(i)
		start := len(slab)
		out, err := h.AEAD().Seal(slab, items[i].GetPlaintext(), c, suite)
		if err != nil {
			return outcome{err: err}
		}
		slab = out
		sealed := slab[start:len(slab):len(slab)]
		results[i].Ciphertext = sealed
		return outcome{sealed, h.Version(), len(items[i].GetPlaintext()), err}
	}, func(i int, e *datav1.ItemError) {
		reply.Results[i] = &datav1.BatchEncryptResponse_Result{Error: e}
	})
	return nil
}

func (p *Plane) batchDecrypt(ctx context.Context, g Grant, req *datav1.BatchDecryptRequest, reply *datav1.BatchDecryptResponse) error {
	items := req.GetItems()
	reply.Results = make([]*datav1.BatchDecryptResponse_Result, len(items))
	results := make([]datav1.BatchDecryptResponse_Result, len(items))
	each(g, len(items), func(i int) outcome {
		reply.Results[i] = &results[i]
		m, plaintext, err := p.openItem(ctx, g, i, items[i].GetCiphertext())
		results[i].Plaintext, results[i].Version = plaintext, version(m, err)
		return outcome{items[i].GetCiphertext(), version(m, err), len(plaintext), err}
	}, func(i int, e *datav1.ItemError) {
		reply.Results[i] = &datav1.BatchDecryptResponse_Result{Error: e}
	})
	return nil
}

func (p *Plane) batchRewrap(ctx context.Context, g Grant, req *datav1.BatchRewrapRequest, reply *datav1.BatchRewrapResponse) error {
	primary, err := p.Keys.Sealing(ctx, g.Keyring(), keys.PurposeAEAD)
	if err != nil {
		return err
	}
	items := req.GetItems()
	reply.Version = primary.Version()
	reply.Results = make([]*datav1.BatchRewrapResponse_Result, len(items))
	results := make([]datav1.BatchRewrapResponse_Result, len(items))
	each(g, len(items), func(i int) outcome {
		reply.Results[i] = &results[i]
		c, _ := g.Item(i)
		m, plaintext, err := p.openItem(ctx, g, i, items[i].GetCiphertext())
		if err != nil {
			return outcome{items[i].GetCiphertext(), 0, 0, err}
		}
		defer secret.Wipe(plaintext)
		sealed, err := primary.AEAD().Seal(nil, plaintext, c, m.Suite())
		results[i].Ciphertext, results[i].PreviousVersion = sealed, m.Version()
		return outcome{sealed, primary.Version(), len(plaintext), err}
	}, func(i int, e *datav1.ItemError) {
		reply.Results[i] = &datav1.BatchRewrapResponse_Result{Error: e}
	})
	return nil
}

func (p *Plane) openItem(ctx context.Context, g Grant, i int, raw []byte) (envelope.Message, []byte, error) {
	m, h, err := p.opening(ctx, g, keys.PurposeAEAD, raw)
	if err != nil {
		return m, nil, err
	}
	c, _ := g.Item(i)
	plaintext, err := h.AEAD().Open(nil, m, c)
	return m, plaintext, err
}

// version is 0 for an envelope that did not open.
func version(m envelope.Message, err error) uint32 {
	if err != nil {
		return 0
	}
	return m.Version()
}
