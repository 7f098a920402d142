package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/policy"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

func (p *Plane) getPolicy(ctx context.Context, _ Grant, _ *controlv1.GetPolicyRequest, reply *controlv1.Policy) error {
	b, err := p.Archive.Bundle(ctx)
	if err != nil {
		return err
	}
	setPolicy(reply, b)
	return nil
}

func (p *Plane) loadPolicy(ctx context.Context, _ Grant, req *controlv1.LoadPolicyRequest, reply *controlv1.Policy) error {
	b := policy.Bundle{Loaded: p.Now().UTC()}
	for _, f := range req.GetFiles() {
		b.Files = append(b.Files, policy.File{Name: f.GetName(), Content: f.GetContent()})
	}
	snapshot, err := policy.Compile(b.Files)
	if err != nil {
		// The caller wrote the policy: what is wrong with it is theirs to read.
		var problems *policy.CompileError
		if errors.As(err, &problems) {
			return fault.Wrap(fault.InvalidPolicy, problems.Error(), err)
		}
		return err
	}
	p.loading.Lock()
	defer p.loading.Unlock()
	current, err := p.Archive.Bundle(ctx)
	if err != nil {
		return err
	}
	if want := req.GetExpectedRevision(); want != 0 && want != current.Revision {
		return fault.New(fault.Conflict, "the policy in force has another revision")
	}
	b.Revision = current.Revision
	if b.Revision, err = p.Archive.ReplaceBundle(ctx, b); err != nil {
		return err
	}
	p.Policy.Swap(snapshot.At(b.Revision))
	setPolicy(reply, b)
	return nil
}

func setPolicy(to *controlv1.Policy, b policy.Bundle) {
	to.Revision = b.Revision
	if !b.Loaded.IsZero() {
		to.LoadTime = timestamppb.New(b.Loaded)
	}
	for _, f := range b.Files {
		to.Files = append(to.Files, &controlv1.PolicyFile{Name: f.Name, Content: f.Content})
	}
}

func contentDigest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
