package sallyport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

// event is what comes from a stream: a reply, or at last the error that ended it, which
// is io.EOF if the gateway ended it.
type event struct {
	reply *secretsv1.WatchLeaseResponse
	err   error
	at    time.Time
}

// open opens the stream of the newest lease.
func (k *keeper) open(ctx context.Context) {
	k.watch = time.Time{}
	to, err := k.role.recipient(k.options.Plain)
	if err != nil {
		k.watch = time.Now().Add(k.broke.after(err))
		k.failed(ctx, err)
		return
	}
	req := &secretsv1.WatchLeaseRequest{
		Name: k.newest.Lease().Name, Recipient: to, Lifetime: lifetimeOf(k.options.Lifetime),
	}
	ctx, k.cut = context.WithCancel(ctx)
	k.stream, k.opened = make(chan event), time.Now()
	events := k.stream // k.stream is another's when the reader is late
	k.helpers.Go(func() { k.role.read(ctx, req, events) })
}

// read passes on what comes from a stream until that or ctx ends.
func (r SecretRole) read(ctx context.Context, req *secretsv1.WatchLeaseRequest, events chan<- event) {
	stream, err := r.client.secrets.WatchLease(ctx, req)
	for {
		e := event{err: err}
		if err == nil {
			e.reply, e.err = stream.Recv()
		}
		e.at = time.Now()
		select {
		case events <- e:
		case <-ctx.Done():
			if e.reply.GetValue() != nil { // a replacement that comes too late
				wipeFields(e.reply.GetPlaintext())
				r.discard(ctx, leaseOf(e.reply.GetLease(), ""))
			}
			return
		}
		if e.err != nil {
			return
		}
	}
}

// drop ends the stream, if there is one.
func (k *keeper) drop() {
	if k.stream != nil {
		k.cut()
		k.stream = nil
	}
}

// handle acts on what came from the stream.
func (k *keeper) handle(ctx context.Context, e event) {
	switch {
	case e.err == nil:
		k.replied(ctx, e)
	case errors.Is(e.err, LeaseGone):
		k.lost(e.err)
	default:
		k.broken(ctx, e.err)
	}
}

// broken opens the stream again after a pause. The gateway ends streams with their
// connection, after minutes, and when it stops; nobody needs to hear of that.
func (k *keeper) broken(ctx context.Context, err error) {
	k.drop()
	usual := errors.Is(err, io.EOF) || errors.Is(err, Unavailable) || errors.Is(err, ShuttingDown)
	if time.Since(k.opened) > settled {
		k.broke = pauses{}
	} else {
		usual = false
	}
	k.watch = time.Now().Add(k.broke.after(err))
	if !usual && ctx.Err() == nil {
		k.report(fmt.Errorf("sallyport: watching a lease of %s: %w", k.role.name, err))
	}
}

// replied takes what the gateway says of the lease, or the replacement that it sends.
func (k *keeper) replied(ctx context.Context, e event) {
	l := leaseOf(e.reply.GetLease(), e.reply.GetReceipt())
	if e.reply.GetValue() == nil {
		if l.Name != k.newest.Lease().Name {
			k.broken(ctx, &Error{Reason: UnexpectedAnswer, Message: "the answer is about another lease", Receipt: l.Receipt})
			return
		}
		k.heard(l)
		return
	}
	fields, err := k.role.open(l, k.options.Plain, e.reply)
	if err == nil && (l.Name == k.newest.Lease().Name || l.State != LeaseActive) {
		wipeFields(fields)
		err = &Error{Reason: UnexpectedAnswer, Message: "a replacement that is none", Receipt: l.Receipt}
	}
	if err != nil {
		if l.Name != k.newest.Lease().Name {
			k.role.discard(ctx, l)
		}
		k.broken(ctx, err)
		return
	}
	k.kept.fail(nil)
	k.take(newSecret(l, k.newest.successor(l, e.at), fields))
	k.watch = time.Time{} // the stream goes on with the replacement
}
