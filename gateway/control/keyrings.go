package control

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/pipeline"
	"github.com/sallyport/sallyport/keys"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

func (p *Plane) createTenant(ctx context.Context, _ Grant, req *controlv1.CreateTenantRequest, reply *controlv1.Tenant) error {
	t := keys.Tenant(req.GetTenantId())
	created, err := p.Keys.CreateTenant(ctx, t)
	if err != nil {
		return err
	}
	setTenant(reply, keys.TenantRow{Tenant: t, Created: created})
	return nil
}

func (p *Plane) listTenants(ctx context.Context, _ Grant, req *controlv1.ListTenantsRequest, reply *controlv1.ListTenantsResponse) error {
	limit, after, err := page(req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return err
	}
	rows, err := p.Keys.Tenants(ctx, keys.Tenant(after), limit)
	if err != nil {
		return err
	}
	for _, row := range rows {
		t := new(controlv1.Tenant)
		setTenant(t, row)
		reply.Tenants = append(reply.Tenants, t)
	}
	if len(rows) == limit {
		reply.NextPageToken = pageToken(string(rows[limit-1].Tenant))
	}
	return nil
}

func setTenant(to *controlv1.Tenant, row keys.TenantRow) {
	to.Name = "tenants/" + string(row.Tenant)
	to.CreateTime = timestamppb.New(row.Created)
}

func (p *Plane) createKeyring(ctx context.Context, g Grant, req *controlv1.CreateKeyringRequest, reply *controlv1.Keyring) error {
	purpose := keys.Purpose(req.GetPurpose())
	if purpose < keys.PurposeAEAD || purpose > keys.PurposeMAC {
		return fault.New(fault.InvalidArgument, "purpose must be PURPOSE_AEAD, PURPOSE_DETERMINISTIC or PURPOSE_MAC")
	}
	period, err := rotationPeriod(req.GetRotationPeriod())
	if err != nil {
		return err
	}
	ring, err := p.Keys.CreateRing(ctx, g.Keyring(), purpose, period)
	if err != nil {
		return err
	}
	g.NoteVersion(1)
	setKeyring(reply, ring)
	return nil
}

// minRotationPeriod keeps a schedule from filling a ring with versions.
const minRotationPeriod = time.Hour

func rotationPeriod(d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	period := d.AsDuration()
	if d.CheckValid() != nil || period != 0 && period < minRotationPeriod {
		return 0, fault.New(fault.InvalidArgument, "rotation_period must be 0 or at least one hour")
	}
	return period, nil
}

func (p *Plane) getKeyring(ctx context.Context, g Grant, _ *controlv1.GetKeyringRequest, reply *controlv1.Keyring) error {
	ring, err := p.Keys.Ring(ctx, g.Keyring())
	if err != nil {
		return err
	}
	setKeyring(reply, ring)
	return nil
}

func (p *Plane) listKeyrings(ctx context.Context, _ Grant, req *controlv1.ListKeyringsRequest, reply *controlv1.ListKeyringsResponse) error {
	limit, after, err := page(req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return err
	}
	tenant, err := keys.ParseTenant(req.GetParent())
	if err != nil {
		return err
	}
	rings, err := p.Keys.Rings(ctx, keys.RingQuery{
		Tenant: tenant, After: after, Limit: limit, Purpose: keys.Purpose(req.GetPurpose()), Prefix: req.GetPrefix(),
	})
	if err != nil {
		return err
	}
	for _, ring := range rings {
		k := new(controlv1.Keyring)
		setKeyring(k, ring)
		reply.Keyrings = append(reply.Keyrings, k)
	}
	if len(rings) == limit {
		reply.NextPageToken = pageToken(rings[limit-1].Name.Keyring)
	}
	return nil
}

func (p *Plane) rotateKeyring(ctx context.Context, g Grant, req *controlv1.RotateKeyringRequest, reply *controlv1.Keyring) error {
	revision, err := parseETag(req.GetEtag())
	if err != nil {
		return err
	}
	ring, err := p.Keys.Rotate(ctx, g.Keyring(), revision)
	if err != nil {
		return err
	}
	setKeyring(reply, ring)
	g.NoteVersion(reply.GetPrimaryVersion())
	return nil
}

func (p *Plane) setVersionState(ctx context.Context, g Grant, req *controlv1.SetVersionStateRequest, reply *controlv1.Keyring) error {
	revision, err := parseETag(req.GetEtag())
	if err != nil {
		return err
	}
	if _, known := controlv1.VersionState_name[int32(req.GetState())]; !known || req.GetState() == 0 || req.GetVersion() == 0 {
		return fault.New(fault.InvalidArgument, "version and state are required")
	}
	g.NoteVersion(req.GetVersion())
	ring, err := p.Keys.SetVersionState(ctx, g.Keyring(), req.GetVersion(), keys.State(req.GetState()), revision)
	switch {
	case errors.Is(err, keys.ErrUnknownVersion):
		return fault.Wrap(fault.NotFound, "the keyring has no such version", err)
	case errors.Is(err, keys.ErrVersionState):
		return fault.Wrap(fault.FailedPrecondition, strings.TrimPrefix(err.Error(), "keys: "), err)
	}
	if err != nil {
		return err
	}
	setKeyring(reply, ring)
	return nil
}

// setKeyring copies what may be shown of a ring: everything but key material. The
// numbers of purposes and states are the same in keys and in the proto; a test
// compares them.
func setKeyring(to *controlv1.Keyring, r keys.Ring) {
	to.Name = r.Name.String()
	to.Uid = hex.EncodeToString(r.ID[:])
	to.Purpose = controlv1.Purpose(r.Purpose)
	to.CreateTime = timestamppb.New(r.Created)
	to.Etag = etag(r.Revision)
	if r.RotationPeriod > 0 {
		to.RotationPeriod = durationpb.New(r.RotationPeriod)
		to.NextRotationTime = timestamppb.New(r.NextRotation)
	}
	for _, v := range r.Versions {
		kv := &controlv1.KeyVersion{
			Version: v.Number, State: controlv1.VersionState(v.State), CreateTime: timestamppb.New(v.Created), Kek: v.KEK,
		}
		if !v.DestroyAt.IsZero() {
			kv.DestroyTime = timestamppb.New(v.DestroyAt)
		}
		if v.State == keys.StatePrimary {
			to.PrimaryVersion = v.Number
		}
		to.Versions = append(to.Versions, kv)
	}
}

// etag is the text form of a revision.
func etag(revision uint64) string { return strconv.FormatUint(revision, 10) }

// parseETag gives 0 for "": any revision.
func parseETag(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil || v == 0 || etag(v) != s {
		return 0, fault.New(fault.InvalidArgument, "etag is not one that this gateway gave")
	}
	return v, nil
}

// Page sizes.
const (
	defaultPage = 100
	maxPage     = 1000
)

// page gives the number of rows to read and the key of the last row before them.
func page(size int32, token string) (limit int, after string, err error) {
	switch {
	case size < 0:
		return 0, "", fault.New(fault.InvalidArgument, "page_size is negative")
	case size == 0:
		size = defaultPage
	}
	key, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil {
		return 0, "", fault.New(fault.InvalidArgument, "page_token is not one that this gateway gave")
	}
	return int(min(size, maxPage)), string(key), nil
}

func pageToken(last string) string { return base64.RawURLEncoding.EncodeToString([]byte(last)) }

func badID(field string) error {
	return fault.New(fault.InvalidArgument, field+" must have 1 to 63 of a-z, 0-9 and -, begin with a letter, and not end with -")
}

// Grant is a grant of the control plane.
type Grant = pipeline.Grant[caller]
