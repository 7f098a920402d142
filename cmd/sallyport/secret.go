package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	sallyport "github.com/sallyport/sallyport/clients/go"
)

func (a *app) secretCommand() *cobra.Command {
	c := group("secret", "Lease secrets, renew and revoke leases, as a workload")
	c.Long = `Lease secrets, renew and revoke leases, as a workload. "sallyport run" and "sallyport agent" do all of it
by themselves, for a program and for files.

No person gets a secret: the gateway refuses an operator's certificate, whatever the policy says.`
	n := a.connects(c, true)
	c.AddCommand(a.leaseSecret(n),
		a.aboutLease(n, "get LEASE", "Show one of the workload's own leases",
			func(ctx context.Context, r sallyport.SecretRole, lease string) (sallyport.Lease, error) {
				return r.Get(ctx, lease)
			}),
		a.renewLease(n),
		a.aboutLease(n, "revoke LEASE", "End one of the workload's own leases; one that has ended may be revoked again",
			func(ctx context.Context, r sallyport.SecretRole, lease string) (sallyport.Lease, error) {
				return r.Revoke(ctx, lease)
			}),
		a.ownLeases(n))
	return c
}

// leased is the JSON form of a lease: that of REST, as far as a workload's client
// tells.
type leased struct {
	Name          string    `json:"name"`
	Workload      string    `json:"workload"`
	Source        string    `json:"source"`
	State         string    `json:"state"`
	CreateTime    time.Time `json:"createTime"`
	ExpireTime    time.Time `json:"expireTime"`
	MaxExpireTime time.Time `json:"maxExpireTime"`
	Renewable     bool      `json:"renewable"`
	Revocable     bool      `json:"revocable"`
	Version       uint64    `json:"version,string"`
	Receipt       string    `json:"receipt"`
}

func leasedOf(l sallyport.Lease) leased {
	return leased{
		l.Name, l.Workload, l.Source, leaseStatePrefix + string(l.State), l.Created.UTC(), l.Expires.UTC(), l.MaxExpires.UTC(),
		l.Renewable, l.Revocable, l.Version, l.Receipt,
	}
}

func (a *app) leaseSecret(n *connection) *cobra.Command {
	var field string
	var lifetime time.Duration
	f := files{app: a}
	c := &cobra.Command{
		Use: "lease ROLE [--field NAME | --output json]", Short: "Lease a secret; print it only if asked to", Args: cobra.ExactArgs(1),
		Long: `Lease a secret. With --field one of its fields is printed as it is, and with --output json all of them;
THIS PRINTS A SECRET, to standard output or into --out FILE. Without them only the lease and the names
of the fields are shown. The lease lives on after the command: revoke it when it is not needed.

On its way the value is sealed to a key of this process.`,
		Example: `  sallyport secret lease tenants/acme/secretRoles/db --field password
  sallyport secret lease tenants/acme/secretRoles/client --field private_key --out client.key`,
	}
	c.Flags().StringVar(&field, "field", "", "print this field, and nothing else, to standard output")
	c.Flags().StringVar(&f.out, "out", "", `file for what is printed, with mode 0600; "-" is standard output, even if that is a terminal`)
	c.Flags().BoolVar(&f.force, "force", false, "replace an output file that exists")
	lifetimeFlag(c, &lifetime)
	c.RunE = func(c *cobra.Command, args []string) error {
		if f.out != "" && field == "" && !a.json {
			return usagef("--out goes with --field or --output json")
		}
		if err := f.checkTarget(f.out); err != nil {
			return err
		}
		hideMemory()
		return n.withData(c.Context(), func(ctx context.Context, g *sallyport.Client) error {
			s, err := g.SecretRole(args[0]).Lease(ctx, sallyport.Lifetime(lifetime))
			if err != nil {
				return err
			}
			defer s.Wipe()
			if field == "" && !a.json {
				a.showSecret(s)
				return nil
			}
			if err = a.writeSecret(&f, selector{args[0], field}, s); err == nil {
				return nil
			}
			// Nobody has it, so nobody needs it.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.timeout)
			defer cancel()
			if _, revoking := g.SecretRole(args[0]).Revoke(ctx, s.Lease().Name); revoking != nil {
				a.warnf("%s is not revoked: %v", s.Lease().Name, revoking)
			}
			return err
		})
	}
	return c
}

func lifetimeFlag(c *cobra.Command, d *time.Duration) {
	c.Flags().DurationVar(d, "lifetime", 0, "how long the credential shall live (default: as the role says)")
}

// showSecret shows what may be seen of a secret.
func (a *app) showSecret(s *sallyport.Secret) {
	a.showOwn(s.Lease())
	a.lines([][2]string{{"fields", strings.Join(s.Names(), ", ")}})
}

// writeSecret writes a field as it is, or JSON, and says so on standard error.
func (a *app) writeSecret(f *files, what selector, s *sallyport.Secret) error {
	if err := what.check(s); err != nil {
		return err
	}
	l := s.Lease()
	write := func(value []byte) error {
		if !printable(value) {
			if err := f.refuseTerminal("a secret that is not text", "use --out FILE"); err != nil {
				return err
			}
		}
		return f.write(value)
	}
	if !a.json {
		a.warnf("this prints a secret: of %s, which ends at %s", l.Name, l.Expires.UTC().Format(time.RFC3339))
		return what.use(s, write)
	}
	names := s.Names()
	if what.field != "" {
		names = []string{what.field}
	}
	lease, err := json.Marshal(leasedOf(l))
	if err != nil {
		return err
	}
	return useJSON(s, names, `{"lease":`+string(lease)+`,"fields":`, "}\n", write)
}

// aboutLease makes a command about one of the workload's leases.
func (a *app) aboutLease(n *connection, use, short string,
	call func(context.Context, sallyport.SecretRole, string) (sallyport.Lease, error),
) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			role, _, ok := strings.Cut(args[0], "/leases/")
			if !ok {
				return usagef("want tenants/{tenant}/secretRoles/{role}/leases/{lease}")
			}
			return n.withData(c.Context(), func(ctx context.Context, g *sallyport.Client) error {
				l, err := call(ctx, g.SecretRole(role), args[0])
				if err != nil {
					return err
				}
				return a.print(leasedOf(l), func() { a.showOwn(l) })
			})
		},
	}
}

func (a *app) renewLease(n *connection) *cobra.Command {
	var lifetime time.Duration
	c := a.aboutLease(n, "renew LEASE", "Put off the end of one of the workload's own leases; shows the true new end",
		func(ctx context.Context, r sallyport.SecretRole, lease string) (sallyport.Lease, error) {
			return r.Renew(ctx, lease, lifetime)
		})
	c.Flags().DurationVar(&lifetime, "lifetime", 0, "how long from now (default: what it was issued for)")
	return c
}

func (a *app) ownLeases(n *connection) *cobra.Command {
	return &cobra.Command{
		Use: "list ROLE", Short: "List the workload's own leases of a role that have not ended", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return n.withData(c.Context(), func(ctx context.Context, g *sallyport.Client) error {
				list, err := g.SecretRole(args[0]).List(ctx)
				if err != nil {
					return err
				}
				all := struct {
					Leases []leased `json:"leases"`
				}{[]leased{}}
				var rows [][]string
				for _, l := range list {
					all.Leases = append(all.Leases, leasedOf(l))
					rows = append(rows, []string{l.Name, stateOf(l), instant(l.Created), instant(l.Expires)})
				}
				return a.print(all, func() { a.table("NAME STATE CREATED EXPIRES", rows) })
			})
		},
	}
}

func stateOf(l sallyport.Lease) string { return strings.ToLower(string(l.State)) }

// instant gives a time in UTC.
func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// showOwn shows one of the workload's own leases.
func (a *app) showOwn(l sallyport.Lease) {
	renewable, revocable := "no", notRevocable
	if l.Renewable {
		renewable = "until " + instant(l.MaxExpires)
	}
	if l.Revocable {
		revocable = "yes"
	}
	lines := [][2]string{
		{"name", l.Name},
		{"state", stateOf(l)},
		{"workload", l.Workload},
		{"source", l.Source},
		{"created", instant(l.Created)},
		{"expires", instant(l.Expires)},
		{"renewable", renewable},
		{"revocable", revocable},
	}
	if l.Version != 0 {
		lines = append(lines, [2]string{"version", fmt.Sprint(l.Version)})
	}
	a.lines(lines)
}
