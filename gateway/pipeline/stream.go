package pipeline

import (
	"context"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/fault"
)

// Stream answers one request with several replies. Each of them is a call of its own
// on the road: authenticated, authorized and recorded anew, with a receipt of its
// own. Between them the stream holds no place on the road.
type Stream struct {
	pipeline *Pipeline
	route    *Route
	evidence *authn.Evidence
	request  proto.Message
	next     again
	begun    bool
	undo     func()
}

// Open makes the stream of a route that streams. Nothing happens before Next.
func (p *Pipeline) Open(r *Route, e *authn.Evidence, req proto.Message) *Stream {
	return &Stream{pipeline: p, route: r, evidence: e, request: req}
}

// Next waits until there is something to answer, and fills the reply. It returns
// io.EOF at the end of the stream; other errors are *fault.Error, with the receipt of
// the refusal. The handler may change the request from reply to reply.
func (s *Stream) Next(ctx context.Context, reply proto.Message) (audit.Receipt, error) {
	if s.begun {
		if s.next.at.IsZero() {
			return audit.Receipt{}, io.EOF
		}
		if f := s.wait(ctx); f != nil {
			return audit.Receipt{}, f
		}
	}
	s.begun, s.undo = true, nil
	p := s.pipeline
	c := p.calls.Get().(*call)
	defer p.calls.Put(c)
	defer c.end()
	c.scheduled = s.next.at
	receipt, err := p.answer(ctx, c, s.route, s.evidence, s.request, reply)
	s.next, s.undo = c.again, c.undo
	if err == nil && s.route.receipted != nil {
		s.route.receipted(reply, receipt.String())
	}
	return receipt, err
}

// Unsent undoes what the last reply was about, because it could not be sent.
func (s *Stream) Unsent() {
	if s.undo != nil {
		s.undo()
		s.undo = nil
	}
}

func (s *Stream) wait(ctx context.Context) *fault.Error {
	timer := time.NewTimer(max(0, s.next.at.Sub(s.pipeline.Now())))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.next.changed:
	case <-ctx.Done():
		return fault.From(ctx.Err())
	case <-s.pipeline.draining:
		return fault.New(fault.ShuttingDown, "")
	}
	return nil
}

// Drain ends the streams that wait. Their callers come back, to another gateway.
func (p *Pipeline) Drain() { p.drain.Do(func() { close(p.draining) }) }
