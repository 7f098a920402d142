package main

import (
	"context"
	"strings"
	"sync"
	"time"

	sallyport "github.com/sallyport/sallyport/clients/go"
)

// keptSecret is a secret that is kept fresh, and the role that it is of.
type keptSecret struct {
	role string
	*sallyport.Kept
}

// patience is how long a call under way may go on after its command was told to end: the
// answer to a lease that is cut off is a credential that nobody has.
const patience = 2 * time.Second

// patiently gives a context that ends a while after ctx does, for leasing.
func patiently(ctx context.Context) (context.Context, context.CancelFunc) {
	patient, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(patience, cancel)
		context.AfterFunc(patient, func() { timer.Stop() })
	})
	return patient, func() { stop(); cancel() }
}

// closeKept revokes what was leased. What cannot be revoked now ends with its lifetime.
func (a *app) closeKept(ctx context.Context, kept []keptSecret) {
	var closing sync.WaitGroup
	for _, k := range kept {
		closing.Go(func() { a.warnIf(k.role+" is not revoked", k.Close(context.WithoutCancel(ctx))) })
	}
	closing.Wait()
}

// warnOfEnds tells when a secret has ended and there is none in its place, and when
// there is one again.
func (a *app) warnOfEnds(kept []keptSecret, stop <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	ended := make([]bool, len(kept))
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		for i, k := range kept {
			_, err := k.Current()
			switch {
			case err != nil && !ended[i]:
				a.warnIf(k.role, err)
			case err == nil && ended[i]:
				a.warnf("%s: there is a secret again", k.role)
			}
			ended[i] = err != nil
		}
	}
}

// warnIf tells of an error that does not end the command.
func (a *app) warnIf(what string, err error) {
	if err != nil {
		a.warnf("%s: %s", what, strings.TrimPrefix(err.Error(), "sallyport: "))
	}
}
