package control

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/keys"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// checkRegistration refuses a registration that could never authenticate.
func (p *Plane) checkRegistration(r *controlv1.RegisterWorkloadRequest) error {
	if !keys.ValidID(r.GetWorkloadId()) {
		return badID("workload_id")
	}
	id, err := spiffeid.FromString(r.GetSpiffeId())
	if err != nil || id.Path() == "" || id.String() != r.GetSpiffeId() {
		return fault.New(fault.InvalidArgument, "spiffe_id is not the SPIFFE id of a workload")
	}
	if !slices.Contains(p.TrustDomains, id.TrustDomain().Name()) {
		return fault.New(fault.InvalidArgument, "spiffe_id belongs to a trust domain that is not configured")
	}
	return nil
}

func (p *Plane) registerWorkload(ctx context.Context, _ Grant, req *controlv1.RegisterWorkloadRequest, reply *controlv1.Workload) error {
	row := authn.Registration{
		ID: req.GetWorkloadId(), SPIFFEID: req.GetSpiffeId(), Enabled: true, Automation: req.GetAutomation(),
		Created: p.Now().UTC(), Revision: 1,
	}
	if err := p.Register.CreateWorkload(ctx, row); err != nil {
		return err
	}
	setWorkload(reply, row)
	return p.refresh(ctx)
}

// refresh puts a change of the register into force. The change is stored: a
// failure to read it back leaves it for the next refresh, and says so.
func (p *Plane) refresh(ctx context.Context) error {
	return p.Authenticator.Refresh(context.WithoutCancel(ctx))
}

func (p *Plane) listWorkloads(ctx context.Context, _ Grant, req *controlv1.ListWorkloadsRequest, reply *controlv1.ListWorkloadsResponse) error {
	limit, after, err := page(req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return err
	}
	rows, err := p.Register.Workloads(ctx, after, limit)
	if err != nil {
		return err
	}
	for _, row := range rows {
		w := new(controlv1.Workload)
		setWorkload(w, row)
		reply.Workloads = append(reply.Workloads, w)
	}
	if len(rows) == limit {
		reply.NextPageToken = pageToken(rows[limit-1].ID)
	}
	return nil
}

func (p *Plane) disableWorkload(ctx context.Context, _ Grant, req *controlv1.DisableWorkloadRequest, reply *controlv1.Workload) error {
	return p.setEnabled(ctx, req.GetName(), false, reply)
}

func (p *Plane) enableWorkload(ctx context.Context, _ Grant, req *controlv1.EnableWorkloadRequest, reply *controlv1.Workload) error {
	return p.setEnabled(ctx, req.GetName(), true, reply)
}

func (p *Plane) setEnabled(ctx context.Context, name string, enabled bool, reply *controlv1.Workload) error {
	id, err := parseWorkload(name)
	if err != nil {
		return err
	}
	row, err := p.Register.Workload(ctx, id)
	if err != nil {
		return err
	}
	if row.Enabled != enabled {
		row.Enabled = enabled
		if err := p.Register.UpdateWorkload(ctx, row); err != nil {
			return err
		}
		row.Revision++
	}
	setWorkload(reply, row)
	if err := p.refresh(ctx); err != nil || enabled {
		return err
	}
	// It gets no new leases from now on; those that it has end.
	_, err = p.Leases.RevokeWhere(ctx, lease.Query{Workload: row.SPIFFEID})
	return err
}

func parseWorkload(name string) (id string, err error) {
	id, ok := strings.CutPrefix(name, "workloads/")
	if !ok || !keys.ValidID(id) {
		return "", fault.New(fault.InvalidArgument, "want workloads/{workload}")
	}
	return id, nil
}

func setWorkload(to *controlv1.Workload, row authn.Registration) {
	to.Name = "workloads/" + row.ID
	to.SpiffeId = row.SPIFFEID
	to.Enabled = row.Enabled
	to.Automation = row.Automation
	to.CreateTime = timestamppb.New(row.Created)
	to.Etag = etag(row.Revision)
}

// maxComment bounds the comment of a revocation, in bytes.
const maxComment = 256

func (p *Plane) revokeCertificate(ctx context.Context, _ Grant, req *controlv1.RevokeCertificateRequest, reply *controlv1.RevokedCertificate) error {
	f, err := parseFingerprint(req.GetSha256Fingerprint())
	if err != nil {
		return err
	}
	if len(req.GetComment()) > maxComment {
		return fault.New(fault.InvalidArgument, "comment has more than 256 bytes")
	}
	row, err := p.Register.Revoke(ctx, authn.Revocation{Fingerprint: f, Comment: req.GetComment(), Revoked: p.Now().UTC()})
	if err != nil {
		return err
	}
	setRevocation(reply, row)
	if err := p.refresh(ctx); err != nil {
		return err
	}
	_, err = p.Leases.RevokeWhere(ctx, lease.Query{Evidence: f})
	return err
}

func (p *Plane) listRevokedCertificates(ctx context.Context, _ Grant, req *controlv1.ListRevokedCertificatesRequest, reply *controlv1.ListRevokedCertificatesResponse) error {
	limit, after, err := page(req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return err
	}
	var last authn.Fingerprint
	if copy(last[:], after) != len(last) && after != "" {
		return fault.New(fault.InvalidArgument, "page_token is not one that this gateway gave")
	}
	rows, err := p.Register.Revocations(ctx, last, limit)
	if err != nil {
		return err
	}
	for _, row := range rows {
		r := new(controlv1.RevokedCertificate)
		setRevocation(r, row)
		reply.RevokedCertificates = append(reply.RevokedCertificates, r)
	}
	if len(rows) == limit {
		reply.NextPageToken = pageToken(string(rows[limit-1].Fingerprint[:]))
	}
	return nil
}

func setRevocation(to *controlv1.RevokedCertificate, row authn.Revocation) {
	to.Sha256Fingerprint = fingerprintText(row.Fingerprint)
	to.Comment = row.Comment
	to.RevokeTime = timestamppb.New(row.Revoked)
}

func fingerprintText(f authn.Fingerprint) string { return hex.EncodeToString(f[:]) }

func parseFingerprint(s string) (f authn.Fingerprint, err error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err != nil || len(b) != len(f) {
		return f, fault.New(fault.InvalidArgument, "sha256_fingerprint must be 32 bytes in hexadecimal")
	}
	copy(f[:], b)
	return f, nil
}
