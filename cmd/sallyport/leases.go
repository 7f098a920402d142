package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	sallyport "github.com/sallyport/sallyport/clients/go"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

const leaseStatePrefix = "LEASE_STATE_"

var leaseStates = enumNames(secretsv1.LeaseState_name, leaseStatePrefix)

func (a *app) leasesCommand() *cobra.Command {
	c := group("leases", "Look at everybody's leases and end them; nobody sees a value")
	n := a.connects(c, false)
	c.AddCommand(a.listLeases(n), a.inspectLease(n), a.revokeLeases(n))
	return c
}

// leaseFilter is a LeaseFilter as flags.
type leaseFilter struct{ tenant, role, workload, state, since string }

func (l *leaseFilter) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&l.tenant, "tenant", "", "only leases of this tenant")
	f.StringVar(&l.role, "role", "", "only leases of this role; its id is enough beside --tenant")
	f.StringVar(&l.workload, "workload", "", "only leases of the workload with this SPIFFE id")
	f.StringVar(&l.state, "state", "", "only leases in this state: "+strings.Join(leaseStates, ", "))
	f.StringVar(&l.since, "since", "", "only leases issued since this time: RFC 3339, or a duration before now such as 24h")
	complete(c, "state", leaseStates...)
}

// settle turns what the flags say into the filter.
func (l *leaseFilter) settle(now time.Time) (*controlv1.LeaseFilter, error) {
	f := &controlv1.LeaseFilter{Role: l.role, Workload: l.workload}
	if l.tenant != "" {
		f.Tenant = resource("tenants", l.tenant)
	}
	if l.role != "" && !strings.Contains(l.role, "/") {
		if l.tenant == "" {
			return nil, usagef("--role wants tenants/{tenant}/secretRoles/{role}, or --tenant beside it")
		}
		f.Role = f.GetTenant() + rolesSegment + l.role
	}
	if l.state != "" {
		state, ok := enumValue(secretsv1.LeaseState_value, leaseStatePrefix, l.state)
		if !ok {
			return nil, usagef("--state is one of %s", strings.Join(leaseStates, ", "))
		}
		f.State = secretsv1.LeaseState(state)
	}
	since, err := moment(l.since, now)
	if err == nil && !since.IsZero() {
		f.IssuedSince = timestamppb.New(since)
	}
	return f, err
}

func (a *app) listLeases(n *connection) *cobra.Command {
	var filter leaseFilter
	c := &cobra.Command{
		Use: "list", Short: "List leases, the oldest first", Args: cobra.NoArgs,
		Long: `List leases, the oldest first. Those that are gone are kept for a day by default. A lease that is stuck
could not be ended for as long as its credential could live: somebody must look at it.`,
		Example: `  sallyport leases list --state stuck
  sallyport leases list --role tenants/acme/secretRoles/db --since 1h`,
	}
	filter.register(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		f, err := filter.settle(time.Now())
		if err != nil {
			return err
		}
		all := &controlv1.SearchLeasesResponse{}
		err = n.withControl(c.Context(), func(ctx context.Context, g *sallyport.Control) error {
			return pages(func(token string) (string, error) {
				r, err := g.Leases.SearchLeases(ctx, &controlv1.SearchLeasesRequest{Filter: f, PageSize: pageSize, PageToken: token})
				all.Leases = append(all.Leases, r.GetLeases()...)
				return r.GetNextPageToken(), err
			})
		})
		if err != nil {
			return err
		}
		return a.printMessage(all, func() { a.showLeases(all.GetLeases()) })
	}
	return c
}

func (a *app) showLeases(leases []*secretsv1.Lease) {
	var rows [][]string
	for _, l := range leases {
		rows = append(rows, []string{
			l.GetName(), enumName(l.GetState(), leaseStatePrefix), l.GetWorkload(), date(l.GetCreateTime()), date(l.GetExpireTime()),
			first(l.GetFailureReason(), "-"),
		})
	}
	a.table("NAME STATE WORKLOAD CREATED EXPIRES FAILURE", rows)
}

const notRevocable = "no: the credential works until it expires"

// showLease shows all there is to know about a lease.
func (a *app) showLease(l *secretsv1.Lease) {
	renewable, revocable := "no", notRevocable
	if l.GetRenewable() {
		renewable = "until " + date(l.GetMaxExpireTime())
	}
	if l.GetRevocable() {
		revocable = "yes"
	}
	lines := [][2]string{
		{"name", l.GetName()},
		{"state", enumName(l.GetState(), leaseStatePrefix)},
		{"workload", l.GetWorkload()},
		{"source", l.GetSource()},
		{"created", date(l.GetCreateTime())},
		{"expires", date(l.GetExpireTime())},
		{"renewable", renewable},
		{"revocable", revocable},
	}
	if l.GetVersion() != 0 {
		lines = append(lines, [2]string{"version", fmt.Sprint(l.GetVersion())})
	}
	if l.GetFailedAttempts() != 0 {
		lines = append(lines, [2]string{"failed", fmt.Sprintf("%s, the last by %s", plural(int(l.GetFailedAttempts()), "attempt"), l.GetFailureReason())})
	}
	if l.GetNextAttemptTime() != nil {
		lines = append(lines, [2]string{"next try", date(l.GetNextAttemptTime())})
	}
	a.lines(lines)
}

func (a *app) inspectLease(n *connection) *cobra.Command {
	return &cobra.Command{
		Use: "inspect LEASE", Short: "Show a lease", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return n.withControl(c.Context(), func(ctx context.Context, g *sallyport.Control) error {
				l, err := g.Leases.InspectLease(ctx, &controlv1.InspectLeaseRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return a.printMessage(l, func() { a.showLease(l) })
			})
		},
	}
}

func (a *app) revokeLeases(n *connection) *cobra.Command {
	var filter leaseFilter
	c := &cobra.Command{
		Use: "revoke {LEASE | --tenant … --role … --workload … --state … --since …}", Short: "End a lease, or all that match",
		Args: cobra.MaximumNArgs(1),
		Long: `End a lease, or all that match every flag that is given; "leases list" with the same flags shows them
beforehand. It returns when the ends are durably decided; "leases list --state revoking" shows those
that the source has not confirmed yet. A credential that cannot be revoked works until it expires.`,
		Example: `  sallyport leases revoke tenants/acme/secretRoles/db/leases/0123456789abcdef0123456789abcdef
  sallyport leases revoke --workload spiffe://example.com/billing
  sallyport leases revoke --since 2h`,
	}
	filter.register(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		f, err := filter.settle(time.Now())
		if err != nil {
			return err
		}
		empty := proto.Equal(f, &controlv1.LeaseFilter{})
		switch {
		case len(args) == 1 && !empty:
			return usagef("LEASE and flags that select exclude each other")
		case len(args) == 1:
			f.Name = args[0]
		case empty:
			return usagef("give LEASE, or at least one of the flags that select")
		}
		return n.withControl(c.Context(), func(ctx context.Context, g *sallyport.Control) error {
			if f.GetName() != "" {
				// Nothing that matches is no error to RevokeLeases; a mistyped name is one.
				if _, err := g.Leases.InspectLease(ctx, &controlv1.InspectLeaseRequest{Name: f.GetName()}); err != nil {
					return err
				}
			}
			r, err := g.Leases.RevokeLeases(ctx, &controlv1.RevokeLeasesRequest{Filter: f})
			if err != nil {
				return err
			}
			return a.printMessage(r, func() { fmt.Fprintf(a.stdout, "%s revoked\n", plural(int(r.GetRevoked()), "lease")) })
		})
	}
	return c
}
