package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	sallyport "github.com/sallyport/sallyport/clients/go"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

func (a *app) workloadsCommand() *cobra.Command {
	c := group("workloads", "Administer which services may call")
	n := a.connects(c, false)
	c.AddCommand(
		a.registerWorkload(n), a.listWorkloads(n),
		a.switchWorkload(n, "disable WORKLOAD", "Refuse a workload from its next call on",
			func(ctx context.Context, g controlv1.WorkloadServiceClient, name string) (*controlv1.Workload, error) {
				return g.DisableWorkload(ctx, &controlv1.DisableWorkloadRequest{Name: name})
			}),
		a.switchWorkload(n, "enable WORKLOAD", "Admit a disabled workload again",
			func(ctx context.Context, g controlv1.WorkloadServiceClient, name string) (*controlv1.Workload, error) {
				return g.EnableWorkload(ctx, &controlv1.EnableWorkloadRequest{Name: name})
			}),
		a.revokeCertificate(n), a.listRevoked(n),
	)
	return c
}

func (a *app) showWorkloads(list ...*controlv1.Workload) {
	var rows [][]string
	for _, w := range list {
		state := "enabled"
		if !w.GetEnabled() {
			state = "disabled"
		}
		if w.GetAutomation() {
			state += ",automation"
		}
		rows = append(rows, []string{w.GetName(), w.GetSpiffeId(), state, date(w.GetCreateTime())})
	}
	a.table("NAME SPIFFE-ID STATE CREATED", rows)
}

func (a *app) registerWorkload(n *connection) *cobra.Command {
	var id string
	var automation bool
	c := &cobra.Command{
		Use: "register WORKLOAD --spiffe-id ID", Short: "Register a service, so that it may call as far as policy allows",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if id == "" {
				return usagef("--spiffe-id is missing")
			}
			return n.withControl(c.Context(), func(ctx context.Context, g *sallyport.Control) error {
				w, err := g.Workloads.RegisterWorkload(ctx, &controlv1.RegisterWorkloadRequest{
					WorkloadId: strings.TrimPrefix(args[0], "workloads/"), SpiffeId: id, Automation: automation,
				})
				if err != nil {
					return err
				}
				return a.printMessage(w, func() { a.showWorkloads(w) })
			})
		},
	}
	c.Flags().StringVar(&id, "spiffe-id", "", "the service's SPIFFE id, spiffe://…")
	c.Flags().BoolVar(&automation, "automation", false, "admit it to the control plane too, as far as policy allows")
	return c
}

func (a *app) listWorkloads(n *connection) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List workloads", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			all := &controlv1.ListWorkloadsResponse{}
			err := n.withControl(c.Context(), func(ctx context.Context, g *sallyport.Control) error {
				return pages(func(token string) (string, error) {
					r, err := g.Workloads.ListWorkloads(ctx, &controlv1.ListWorkloadsRequest{PageSize: pageSize, PageToken: token})
					all.Workloads = append(all.Workloads, r.GetWorkloads()...)
					return r.GetNextPageToken(), err
				})
			})
			if err != nil {
				return err
			}
			return a.printMessage(all, func() { a.showWorkloads(all.GetWorkloads()...) })
		},
	}
}

func (a *app) switchWorkload(n *connection, use, short string,
	call func(context.Context, controlv1.WorkloadServiceClient, string) (*controlv1.Workload, error),
) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return n.withControl(c.Context(), func(ctx context.Context, g *sallyport.Control) error {
				w, err := call(ctx, g.Workloads, resource("workloads", args[0]))
				if err != nil {
					return err
				}
				return a.printMessage(w, func() { a.showWorkloads(w) })
			})
		},
	}
}

func (a *app) revokeCertificate(n *connection) *cobra.Command {
	var file, comment string
	c := &cobra.Command{
		Use: "revoke-certificate {FINGERPRINT | --file FILE}", Short: "Refuse a certificate from now on, whoever holds it",
		Long: `Refuse a certificate from now on, on open connections too, whoever holds it.

FINGERPRINT is the SHA-256 of the certificate's DER in hexadecimal, as "openssl x509 -fingerprint -sha256"
prints it, with or without colons.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var fingerprint string
			switch {
			case len(args) == 1 && file == "":
				fingerprint = args[0]
			case len(args) == 0 && file != "":
				var err error
				if fingerprint, err = fingerprintOf(file); err != nil {
					return err
				}
			default:
				return usagef("give FINGERPRINT or --file")
			}
			return n.withControl(c.Context(), func(ctx context.Context, g *sallyport.Control) error {
				r, err := g.Workloads.RevokeCertificate(ctx, &controlv1.RevokeCertificateRequest{Sha256Fingerprint: fingerprint, Comment: comment})
				if err != nil {
					return err
				}
				return a.printMessage(r, func() { a.showRevoked(r) })
			})
		},
	}
	c.Flags().StringVar(&file, "file", "", "PEM file, of which the first certificate is revoked")
	c.Flags().StringVar(&comment, "comment", "", "why, for the record")
	return c
}

// fingerprintOf gives the SHA-256 of the first certificate in a PEM file.
func fingerprintOf(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return "", fmt.Errorf("%s: %w", file, err)
		}
		sum := sha256.Sum256(block.Bytes)
		return hex.EncodeToString(sum[:]), nil
	}
	return "", fmt.Errorf("%s holds no certificate", file)
}

func (a *app) listRevoked(n *connection) *cobra.Command {
	return &cobra.Command{
		Use: "list-revoked", Short: "List revoked certificates", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			all := &controlv1.ListRevokedCertificatesResponse{}
			err := n.withControl(c.Context(), func(ctx context.Context, g *sallyport.Control) error {
				return pages(func(token string) (string, error) {
					r, err := g.Workloads.ListRevokedCertificates(ctx, &controlv1.ListRevokedCertificatesRequest{PageSize: pageSize, PageToken: token})
					all.RevokedCertificates = append(all.RevokedCertificates, r.GetRevokedCertificates()...)
					return r.GetNextPageToken(), err
				})
			})
			if err != nil {
				return err
			}
			return a.printMessage(all, func() { a.showRevoked(all.GetRevokedCertificates()...) })
		},
	}
}

func (a *app) showRevoked(list ...*controlv1.RevokedCertificate) {
	var rows [][]string
	for _, r := range list {
		rows = append(rows, []string{r.GetSha256Fingerprint(), date(r.GetRevokeTime()), r.GetComment()})
	}
	a.table("SHA256 REVOKED COMMENT", rows)
}
