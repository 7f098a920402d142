package gateway

import (
	"errors"
	"slices"

	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/broker"
	"github.com/sallyport/sallyport/gateway/control"
	"github.com/sallyport/sallyport/gateway/dataplane"
	"github.com/sallyport/sallyport/gateway/pipeline"
	"github.com/sallyport/sallyport/gateway/policy"
	"github.com/sallyport/sallyport/gateway/transport"
)

// table is the one table of routes, by plane.
type table struct{ data, control []pipeline.Route }

func (t table) all() []pipeline.Route { return slices.Concat(t.data, t.control) }

// routes makes the table and compares it with what the protos declare.
func routes(c Config, a *authn.Authenticator, e *policy.Engine) (table, error) {
	data := &dataplane.Plane{Keys: c.Keys}
	secrets := &broker.Plane{Leases: c.Leases}
	ctl := &control.Plane{
		Keys: c.Keys, Register: c.Register, Authenticator: a, TrustDomains: c.TrustDomains,
		Archive: c.Archive, Policy: e, Leases: c.Leases, Now: c.Now,
	}
	t := table{data: slices.Concat(data.Routes(), secrets.Routes()), control: ctl.Routes()}
	return t, errors.Join(
		pipeline.Check(t.data, transport.DataServices()...),
		pipeline.Check(t.control, transport.ControlServices()...),
	)
}
