package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	sallyport "github.com/sallyport/sallyport/clients/go"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

const (
	purposePrefix = "PURPOSE_"
	statePrefix   = "VERSION_STATE_"
	pageSize      = 1000
)

var (
	purposes = enumNames(controlv1.Purpose_name, purposePrefix)
	states   = enumNames(controlv1.VersionState_name, statePrefix)
)

// page asks for one page and gives the next page's token.
type page func(token string) (next string, err error)

// pages asks for all pages.
func pages(p page) error {
	for token := ""; ; {
		next, err := p(token)
		if err != nil || next == "" {
			return err
		}
		token = next
	}
}

func (a *app) tenantsCommand() *cobra.Command {
	c := group("tenants", "Administer tenants, the owners of data")
	n := a.connects(c, false)
	c.AddCommand(&cobra.Command{
		Use: "create TENANT", Short: "Make a tenant", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return n.withControl(c.Context(), func(ctx context.Context, g *sallyport.Control) error {
				t, err := g.Keyrings.CreateTenant(ctx, &controlv1.CreateTenantRequest{TenantId: strings.TrimPrefix(args[0], "tenants/")})
				if err != nil {
					return err
				}
				return a.printMessage(t, func() { fmt.Fprintln(a.stdout, t.GetName()) })
			})
		},
	}, &cobra.Command{
		Use: "list", Short: "List tenants", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			all := &controlv1.ListTenantsResponse{}
			err := n.withControl(c.Context(), func(ctx context.Context, g *sallyport.Control) error {
				return pages(func(token string) (string, error) {
					r, err := g.Keyrings.ListTenants(ctx, &controlv1.ListTenantsRequest{PageSize: pageSize, PageToken: token})
					all.Tenants = append(all.Tenants, r.GetTenants()...)
					return r.GetNextPageToken(), err
				})
			})
			if err != nil {
				return err
			}
			return a.printMessage(all, func() {
				var rows [][]string
				for _, t := range all.GetTenants() {
					rows = append(rows, []string{t.GetName(), date(t.GetCreateTime())})
				}
				a.table("NAME CREATED", rows)
			})
		},
	})
	return c
}

func (a *app) keyringsCommand() *cobra.Command {
	c := group("keyrings", "Administer keyrings and their versions")
	n := a.connects(c, false)
	c.AddCommand(a.createKeyring(n), a.getKeyring(n), a.listKeyrings(n), a.rotateKeyring(n), a.setState(n))
	return c
}

// changeKeyring runs a call that answers with a keyring, and shows it.
func (a *app) changeKeyring(ctx context.Context, n *connection,
	call func(context.Context, controlv1.KeyringServiceClient) (*controlv1.Keyring, error),
) error {
	return n.withControl(ctx, func(ctx context.Context, g *sallyport.Control) error {
		k, err := call(ctx, g.Keyrings)
		if err != nil {
			return err
		}
		return a.printMessage(k, func() { a.showKeyring(k) })
	})
}

func (a *app) showKeyring(k *controlv1.Keyring) {
	fmt.Fprintf(a.stdout, "name:      %s\nuid:       %s\npurpose:   %s\nprimary:   %d\ncreated:   %s\netag:      %s\n",
		k.GetName(), k.GetUid(), enumName(k.GetPurpose(), purposePrefix), k.GetPrimaryVersion(), date(k.GetCreateTime()), k.GetEtag())
	if p := k.GetRotationPeriod().AsDuration(); p > 0 {
		fmt.Fprintf(a.stdout, "rotation:  every %s, next %s\n", p, date(k.GetNextRotationTime()))
	}
	var rows [][]string
	for _, v := range k.GetVersions() {
		rows = append(rows, []string{
			fmt.Sprint(v.GetVersion()), enumName(v.GetState(), statePrefix), date(v.GetCreateTime()), date(v.GetDestroyTime()), v.GetKek(),
		})
	}
	fmt.Fprintln(a.stdout)
	a.table("VERSION STATE CREATED DESTROYED KEK", rows)
}

func (a *app) createKeyring(n *connection) *cobra.Command {
	var purpose string
	var period time.Duration
	c := &cobra.Command{
		Use: "create NAME --purpose PURPOSE", Short: "Make a keyring with one version", Args: cobra.ExactArgs(1),
		Example: `  sallyport keyrings create tenants/acme/keyrings/cards --purpose aead --rotation-period 2160h`,
		RunE: func(c *cobra.Command, args []string) error {
			parent, id, ok := strings.Cut(args[0], "/keyrings/")
			if !ok || !strings.HasPrefix(parent, "tenants/") {
				return usagef("want tenants/{tenant}/keyrings/{keyring}")
			}
			p, ok := enumValue(controlv1.Purpose_value, purposePrefix, purpose)
			if !ok {
				return usagef("--purpose is one of %s", strings.Join(purposes, ", "))
			}
			req := &controlv1.CreateKeyringRequest{Parent: parent, KeyringId: id, Purpose: controlv1.Purpose(p)}
			if period != 0 {
				req.RotationPeriod = durationpb.New(period)
			}
			return a.changeKeyring(c.Context(), n, func(ctx context.Context, g controlv1.KeyringServiceClient) (*controlv1.Keyring, error) {
				return g.CreateKeyring(ctx, req)
			})
		},
	}
	c.Flags().StringVar(&purpose, "purpose", "", "what it is for, for good: "+strings.Join(purposes, ", "))
	c.Flags().DurationVar(&period, "rotation-period", 0, "rotate this often, such as 2160h (default: by hand only)")
	complete(c, "purpose", purposes...)
	return c
}

func (a *app) getKeyring(n *connection) *cobra.Command {
	return &cobra.Command{
		Use: "get NAME", Short: "Show a keyring and its versions", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.changeKeyring(c.Context(), n, func(ctx context.Context, g controlv1.KeyringServiceClient) (*controlv1.Keyring, error) {
				return g.GetKeyring(ctx, &controlv1.GetKeyringRequest{Name: args[0]})
			})
		},
	}
}

func (a *app) listKeyrings(n *connection) *cobra.Command {
	var purpose, prefix string
	c := &cobra.Command{
		Use: "list TENANT", Short: "List a tenant's keyrings", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			req := &controlv1.ListKeyringsRequest{Parent: resource("tenants", args[0]), PageSize: pageSize, Prefix: prefix}
			if purpose != "" {
				p, ok := enumValue(controlv1.Purpose_value, purposePrefix, purpose)
				if !ok {
					return usagef("--purpose is one of %s", strings.Join(purposes, ", "))
				}
				req.Purpose = controlv1.Purpose(p)
			}
			all := &controlv1.ListKeyringsResponse{}
			err := n.withControl(c.Context(), func(ctx context.Context, g *sallyport.Control) error {
				return pages(func(token string) (string, error) {
					req.PageToken = token
					r, err := g.Keyrings.ListKeyrings(ctx, req)
					all.Keyrings = append(all.Keyrings, r.GetKeyrings()...)
					return r.GetNextPageToken(), err
				})
			})
			if err != nil {
				return err
			}
			return a.printMessage(all, func() {
				var rows [][]string
				for _, k := range all.GetKeyrings() {
					rows = append(rows, []string{
						k.GetName(), enumName(k.GetPurpose(), purposePrefix), fmt.Sprint(k.GetPrimaryVersion()), date(k.GetCreateTime()),
					})
				}
				a.table("NAME PURPOSE PRIMARY CREATED", rows)
			})
		},
	}
	c.Flags().StringVar(&purpose, "purpose", "", "only keyrings of this purpose: "+strings.Join(purposes, ", "))
	c.Flags().StringVar(&prefix, "prefix", "", "only keyrings whose id begins with this")
	complete(c, "purpose", purposes...)
	return c
}

func (a *app) rotateKeyring(n *connection) *cobra.Command {
	var etag string
	c := &cobra.Command{
		Use: "rotate NAME", Short: "Make a new primary version; earlier ones go on decrypting", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.changeKeyring(c.Context(), n, func(ctx context.Context, g controlv1.KeyringServiceClient) (*controlv1.Keyring, error) {
				return g.RotateKeyring(ctx, &controlv1.RotateKeyringRequest{Name: args[0], Etag: etag})
			})
		},
	}
	etagFlag(c, &etag)
	return c
}

func (a *app) setState(n *connection) *cobra.Command {
	var etag string
	c := &cobra.Command{
		Use: "set-state NAME VERSION STATE", Short: "Move one version to another state", Args: cobra.ExactArgs(3),
		Long:      "Move one version to another state: " + strings.Join(states, ", ") + ".",
		ValidArgs: states,
		RunE: func(c *cobra.Command, args []string) error {
			version, err := strconv.ParseUint(args[1], 10, 32)
			if err != nil || version == 0 {
				return usagef("VERSION is a number from 1")
			}
			state, ok := enumValue(controlv1.VersionState_value, statePrefix, args[2])
			if !ok {
				return usagef("STATE is one of %s", strings.Join(states, ", "))
			}
			return a.changeKeyring(c.Context(), n, func(ctx context.Context, g controlv1.KeyringServiceClient) (*controlv1.Keyring, error) {
				return g.SetVersionState(ctx, &controlv1.SetVersionStateRequest{
					Name: args[0], Version: uint32(version), State: controlv1.VersionState(state), Etag: etag,
				})
			})
		},
	}
	etagFlag(c, &etag)
	return c
}

func etagFlag(c *cobra.Command, etag *string) {
	c.Flags().StringVar(etag, "etag", "", "change it only if it still has this etag")
}

// resource gives the resource name for an id or a name.
func resource(collection, arg string) string {
	if strings.Contains(arg, "/") {
		return arg
	}
	return collection + "/" + arg
}
