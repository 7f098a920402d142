package gateway

import (
	"context"

	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/gateway/pipeline"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
)

// sweepAction is what records call the gateway's own deeds with leases.
const sweepAction = "sallyport.gateway.SweepLease"

// leaseNotes records what the sweeper does. A record that cannot be written is logged
// and does not stop it: to leave a credential alive for want of a log would be the
// wrong way to fail.
type leaseNotes struct{ gateway *Gateway }

var _ lease.Notes = leaseNotes{}

// Intend implements lease.Notes.
func (n leaseNotes) Intend(ctx context.Context, d lease.Deed) {
	n.note(ctx, auditv1.Phase_PHASE_INTENT, d, "")
}

// Done implements lease.Notes.
func (n leaseNotes) Done(ctx context.Context, d lease.Deed, err error) {
	phase := auditv1.Phase_PHASE_EVENT
	if d.What == lease.DeedRevoke {
		phase = auditv1.Phase_PHASE_OUTCOME
	}
	reason := ""
	if err != nil {
		reason = pipeline.Reason(err).Reason.String()
	}
	n.note(context.WithoutCancel(ctx), phase, d, reason)
}

func (n leaseNotes) note(ctx context.Context, phase auditv1.Phase, d lease.Deed, reason string) {
	name := d.Lease.Name.String()
	err := n.gateway.pipeline.Note(ctx, phase, sweepAction, name, reason, "deed="+d.What, "state="+d.Lease.State.String(), "workload="+d.Lease.Workload)
	if err != nil {
		n.gateway.config.Logger.ErrorContext(ctx, "what the sweeper does is not on record", "lease", name, "deed", d.What, "error", err)
	}
}
