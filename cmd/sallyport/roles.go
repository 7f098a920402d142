package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	sallyport "github.com/sallyport/sallyport/clients/go"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

const rolesSegment = "/secretRoles/"

func (a *app) rolesCommand() *cobra.Command {
	c := group("roles", "Administer secret roles: what services may lease, from which source, for how long")
	n := a.connects(c, false)
	c.AddCommand(a.createRole(n), a.getRole(n), a.listRoles(n), a.updateRole(n), a.deleteRole(n))
	return c
}

// changeRole runs a call that answers with a role, and shows it.
func (a *app) changeRole(ctx context.Context, n *connection,
	call func(context.Context, controlv1.SecretRoleServiceClient) (*controlv1.SecretRole, error),
) error {
	return n.withControl(ctx, func(ctx context.Context, g *sallyport.Control) error {
		r, err := call(ctx, g.SecretRoles)
		if err != nil {
			return err
		}
		return a.printMessage(r, func() { a.showRole(r) })
	})
}

func (a *app) showRole(r *controlv1.SecretRole) {
	kind, what := describe(r.GetParameters())
	delivery := "sealed, or plain to whoever asks for that"
	if r.GetSealedOnly() {
		delivery = "sealed only"
	}
	renewable := "no"
	if r.GetRenewable() {
		renewable = "where the source can"
	}
	a.lines([][2]string{
		{"name", r.GetName()},
		{"source", r.GetSource()},
		{"kind", kind},
		{"parameters", what},
		{"lifetime", fmt.Sprintf("%s, at most %s", r.GetDefaultLifetime().AsDuration(), r.GetMaxLifetime().AsDuration())},
		{"renewable", renewable},
		{"quota", plural(int(r.GetQuotaPerWorkload()), "lease") + " for each workload"},
		{"delivery", delivery},
		{"created", date(r.GetCreateTime())},
		{"etag", r.GetEtag()},
	})
}

// roleFlags are a role's source, parameters and limits as a command line gives them.
type roleFlags struct {
	parameters parameterFlags

	file, source string
	max, def     time.Duration
	renewable    bool
	quota        uint32
	sealedOnly   bool
}

// limitFlags are the names of the flags that are not of the parameters.
var limitFlags = []string{"source", "max-lifetime", "default-lifetime", "renewable", "quota", "sealed-only"}

func (r *roleFlags) register(c *cobra.Command, create bool) {
	f := c.Flags()
	f.StringVar(&r.file, "file", "", `role as JSON or YAML, instead of the other flags: what "roles get --output json" prints; - is standard input`)
	if create {
		f.StringVar(&r.source, "source", "", `name of a configured source; "sallyport sources" lists them`)
	}
	r.parameters.register(f)
	f.DurationVar(&r.max, "max-lifetime", 0, "how long a lease may live, renewals included: 1s to 2160h")
	f.DurationVar(&r.def, "default-lifetime", 0, "how long a lease lives that is asked for without a lifetime, and each renewal (default 15m)")
	f.BoolVar(&r.renewable, "renewable", false, "leases can be renewed, where the source can")
	f.Uint32Var(&r.quota, "quota", 0, "how many leases a workload may hold at once (default 100)")
	f.BoolVar(&r.sealedOnly, "sealed-only", false, "deliver the value to nobody but a recipient's key")
}

// apply puts what the flags say over a role, which is new or as it was. file tells
// that the role came whole, from a file.
func (r *roleFlags) apply(a *app, c *cobra.Command, role *controlv1.SecretRole) error {
	changed := c.Flags().Changed
	if r.file != "" {
		for _, name := range append(parameterNames(), limitFlags...) {
			if changed(name) {
				return usagef("--file and --%s exclude each other", name)
			}
		}
		return a.readRole(r.file, role)
	}
	if changed("source") {
		role.Source = r.source
	}
	if changed("max-lifetime") {
		role.MaxLifetime = durationpb.New(r.max)
	}
	if changed("default-lifetime") {
		role.DefaultLifetime = durationpb.New(r.def)
	}
	if changed("renewable") {
		role.Renewable = r.renewable
	}
	if changed("quota") {
		role.QuotaPerWorkload = r.quota
	}
	if changed("sealed-only") {
		role.SealedOnly = r.sealedOnly
	}
	var err error
	role.Parameters, err = r.parameters.apply(changed, role.GetParameters())
	return err
}

func (a *app) createRole(n *connection) *cobra.Command {
	var r roleFlags
	c := &cobra.Command{
		Use: "create NAME {--source SOURCE --KIND … | --file FILE}", Short: "Make a role", Args: cobra.MaximumNArgs(1),
		Long: `Make a role. Exactly one of the flags --local-certificate and --vault-… says its kind. NAME may be in
the file instead.`,
		Example: `  sallyport roles create tenants/acme/secretRoles/client --source local --local-certificate --max-lifetime 1h
  sallyport roles create tenants/acme/secretRoles/db --source vault --vault-database database/app --max-lifetime 8h --renewable
  sallyport roles create --file role.yaml`,
	}
	r.register(c, true)
	c.RunE = func(c *cobra.Command, args []string) error {
		role := &controlv1.SecretRole{}
		if err := r.apply(a, c, role); err != nil {
			return err
		}
		name, err := nameOf(args, role.GetName())
		if err != nil {
			return err
		}
		parent, id, ok := strings.Cut(name, rolesSegment)
		switch {
		case !ok || !strings.HasPrefix(parent, "tenants/"):
			return usagef("want tenants/{tenant}/secretRoles/{role}")
		case role.GetSource() == "":
			return usagef("--source is missing")
		case role.GetParameters().GetKind() == nil:
			return usagef("the role's kind is missing: give one of %s, or --file", kindFlags())
		case role.GetMaxLifetime() == nil:
			return usagef("--max-lifetime is missing")
		}
		return a.changeRole(c.Context(), n, func(ctx context.Context, g controlv1.SecretRoleServiceClient) (*controlv1.SecretRole, error) {
			return g.CreateSecretRole(ctx, &controlv1.CreateSecretRoleRequest{
				Parent: parent, SecretRoleId: id, Source: role.GetSource(), Parameters: role.GetParameters(),
				MaxLifetime: role.GetMaxLifetime(), DefaultLifetime: role.GetDefaultLifetime(), Renewable: role.GetRenewable(),
				QuotaPerWorkload: role.GetQuotaPerWorkload(), SealedOnly: role.GetSealedOnly(),
			})
		})
	}
	return c
}

// nameOf settles a name that the command line or a file gives, or both.
func nameOf(args []string, inFile string) (string, error) {
	switch {
	case len(args) == 0 && inFile == "":
		return "", usagef("NAME is missing")
	case len(args) == 0:
		return inFile, nil
	case inFile != "" && inFile != args[0]:
		return "", usagef("the file is of %s", inFile)
	default:
		return args[0], nil
	}
}

func (a *app) getRole(n *connection) *cobra.Command {
	return &cobra.Command{
		Use: "get NAME", Short: "Show a role", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.changeRole(c.Context(), n, func(ctx context.Context, g controlv1.SecretRoleServiceClient) (*controlv1.SecretRole, error) {
				return g.GetSecretRole(ctx, &controlv1.GetSecretRoleRequest{Name: args[0]})
			})
		},
	}
}

func (a *app) listRoles(n *connection) *cobra.Command {
	return &cobra.Command{
		Use: "list TENANT", Short: "List a tenant's roles", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			req := &controlv1.ListSecretRolesRequest{Parent: resource("tenants", args[0]), PageSize: pageSize}
			all := &controlv1.ListSecretRolesResponse{}
			err := n.withControl(c.Context(), func(ctx context.Context, g *sallyport.Control) error {
				return pages(func(token string) (string, error) {
					req.PageToken = token
					r, err := g.SecretRoles.ListSecretRoles(ctx, req)
					all.SecretRoles = append(all.SecretRoles, r.GetSecretRoles()...)
					return r.GetNextPageToken(), err
				})
			})
			if err != nil {
				return err
			}
			return a.printMessage(all, func() {
				var rows [][]string
				for _, r := range all.GetSecretRoles() {
					kind, _ := describe(r.GetParameters())
					rows = append(rows, []string{
						r.GetName(), r.GetSource(), kind, r.GetDefaultLifetime().AsDuration().String(), r.GetMaxLifetime().AsDuration().String(),
					})
				}
				a.table("NAME SOURCE KIND LIFETIME MAXIMUM", rows)
			})
		},
	}
}

func (a *app) updateRole(n *connection) *cobra.Command {
	var r roleFlags
	var etag string
	c := &cobra.Command{
		Use: "update NAME [flags | --file FILE]", Short: "Change a role's parameters and limits; its leases keep theirs", Args: cobra.MaximumNArgs(1),
		Long: `Change a role's parameters and limits. Flags change what they name, and --file replaces the whole; a
role's source cannot be changed. If somebody else changes the role meanwhile, the answer is CONFLICT.`,
		Example: `  sallyport roles update tenants/acme/secretRoles/db --max-lifetime 4h
  sallyport roles get tenants/acme/secretRoles/db --output json > db.json; $EDITOR db.json; sallyport roles update --file db.json`,
	}
	r.register(c, false)
	etagFlag(c, &etag)
	c.RunE = func(c *cobra.Command, args []string) error {
		whole := &controlv1.SecretRole{}
		if r.file != "" {
			if err := r.apply(a, c, whole); err != nil {
				return err
			}
		}
		name, err := nameOf(args, whole.GetName())
		if err != nil {
			return err
		}
		return a.changeRole(c.Context(), n, func(ctx context.Context, g controlv1.SecretRoleServiceClient) (*controlv1.SecretRole, error) {
			role, err := g.GetSecretRole(ctx, &controlv1.GetSecretRoleRequest{Name: name})
			switch {
			case err != nil:
				return nil, err
			case r.file == "":
				err = r.apply(a, c, role)
			case whole.GetSource() != "" && whole.GetSource() != role.GetSource():
				err = usagef("a role's source cannot be changed: it is %s, not %s", role.GetSource(), whole.GetSource())
			default:
				role = whole
			}
			if err != nil {
				return nil, err
			}
			return g.UpdateSecretRole(ctx, &controlv1.UpdateSecretRoleRequest{
				Name: name, Parameters: role.GetParameters(), MaxLifetime: role.GetMaxLifetime(),
				DefaultLifetime: role.GetDefaultLifetime(), Renewable: role.GetRenewable(),
				QuotaPerWorkload: role.GetQuotaPerWorkload(), SealedOnly: role.GetSealedOnly(), Etag: first(etag, role.GetEtag()),
			})
		})
	}
	return c
}

func (a *app) deleteRole(n *connection) *cobra.Command {
	var etag string
	c := &cobra.Command{
		Use: "delete NAME", Short: "Remove a role; its leases go on to their end", Args: cobra.ExactArgs(1),
		Long: `Remove a role: nothing is issued or renewed for it any more. Leases go on to their end;
"sallyport leases revoke --role NAME" ends them.`,
		RunE: func(c *cobra.Command, args []string) error {
			return n.withControl(c.Context(), func(ctx context.Context, g *sallyport.Control) error {
				r, err := g.SecretRoles.DeleteSecretRole(ctx, &controlv1.DeleteSecretRoleRequest{Name: args[0], Etag: etag})
				if err != nil {
					return err
				}
				return a.printMessage(r, func() { fmt.Fprintf(a.stdout, "%s is deleted\n", args[0]) })
			})
		},
	}
	etagFlag(c, &etag)
	return c
}
