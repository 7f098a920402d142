package gateway

import (
	"context"
	"time"

	"github.com/sallyport/sallyport/gateway/pipeline"
	"github.com/sallyport/sallyport/keys"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
)

// tendInterval is how often scheduled rotations and destructions are looked for.
const tendInterval = 10 * time.Second

// tend does what is due, until the context ends. Each deed is on record before and
// after.
func (g *Gateway) tend(ctx context.Context) {
	tick := time.NewTicker(tendInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := g.config.Keys.RunDue(ctx, g.intend(ctx), g.done(ctx)); err != nil {
			g.config.Logger.ErrorContext(ctx, "scheduled work failed and will be tried again", "error", err)
		}
	}
}

// scheduledAction is what records call the gateway's own deeds.
const scheduledAction = "sallyport.gateway.ScheduledKeyringWork"

func (g *Gateway) intend(ctx context.Context) func(keys.Deed) error {
	return func(d keys.Deed) error {
		return g.pipeline.Note(ctx, auditv1.Phase_PHASE_INTENT, scheduledAction, d.Name.String(), "", d.String())
	}
}

func (g *Gateway) done(ctx context.Context) func(keys.Deed, error) {
	return func(d keys.Deed, err error) {
		reason := ""
		if err != nil {
			reason = pipeline.Reason(err).Reason.String()
		}
		err = g.pipeline.Note(context.WithoutCancel(ctx), auditv1.Phase_PHASE_OUTCOME, scheduledAction, d.Name.String(), reason, d.String())
		if err != nil {
			g.config.Logger.ErrorContext(ctx, "the outcome of scheduled work is not on record", "keyring", d.Name.String(), "error", err)
		}
	}
}
