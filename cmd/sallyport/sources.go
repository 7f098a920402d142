package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	sallyport "github.com/sallyport/sallyport/clients/go"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

func (a *app) sourcesCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "sources", Short: "List the sources of secrets, and why one cannot issue now", Args: cobra.NoArgs,
	}
	n := a.connects(c, false)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return n.withControl(c.Context(), func(ctx context.Context, g *sallyport.Control) error {
			all, err := g.SecretRoles.ListSources(ctx, &controlv1.ListSourcesRequest{})
			if err != nil {
				return err
			}
			return a.printMessage(all, func() {
				var rows [][]string
				for _, s := range all.GetSources() {
					rows = append(rows, []string{s.GetName(), s.GetKind(), first(s.GetFailureReason(), "ok")})
				}
				a.table("NAME KIND STATE", rows)
			})
		})
	}
	return c
}

func (a *app) vaultCommand() *cobra.Command {
	return group("vault", "What a Vault must be told, so that the gateway can use it", a.vaultPolicy())
}

func (a *app) vaultPolicy() *cobra.Command {
	var source string
	c := &cobra.Command{
		Use: "policy", Short: "Print the least Vault policy that the configured roles need", Args: cobra.NoArgs,
		Long: `Print the least Vault policy that the configured roles need: a shell script of "vault policy write"
and "vault write auth/token/roles/…", to read and then to run by somebody who may write policies.
Nothing is sent to Vault. Run it again after a role was made or changed.

The script is for the Vault, and the namespace, that the environment of the vault command names.`,
		Example: `  sallyport vault policy --source vault > vault-policy.sh
  sallyport vault policy --output json`,
	}
	n := a.connects(c, false)
	c.Flags().StringVar(&source, "source", "", "name of the source (default: all of kind vault)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return n.withControl(c.Context(), func(ctx context.Context, g *sallyport.Control) error {
			names := []string{resource("sources", source)}
			if source == "" {
				all, err := g.SecretRoles.ListSources(ctx, &controlv1.ListSourcesRequest{})
				if err != nil {
					return err
				}
				if names = vaultsOf(all.GetSources()); len(names) == 0 {
					return errors.New("the gateway has no source of kind vault")
				}
			}
			policies := make([]*controlv1.SourcePolicy, len(names))
			for i, name := range names {
				var err error
				if policies[i], err = g.SecretRoles.GetSourcePolicy(ctx, &controlv1.GetSourcePolicyRequest{Name: name}); err != nil {
					return err
				}
			}
			return a.printPolicies(names, policies)
		})
	}
	return c
}

func vaultsOf(sources []*controlv1.SecretSource) (names []string) {
	for _, s := range sources {
		if s.GetKind() == "vault" {
			names = append(names, s.GetName())
		}
	}
	return names
}

func (a *app) printPolicies(names []string, policies []*controlv1.SourcePolicy) error {
	type of struct {
		Source    string          `json:"source"`
		Documents json.RawMessage `json:"documents"`
	}
	var out struct {
		Sources []of `json:"sources"`
	}
	var script strings.Builder
	script.WriteString("set -eu\n")
	for i, p := range policies {
		raw, err := messageJSON(p)
		if err != nil {
			return err
		}
		var m struct {
			Documents json.RawMessage `json:"documents"`
		}
		if err := json.Unmarshal(raw, &m); err != nil {
			return err
		}
		out.Sources = append(out.Sources, of{names[i], m.Documents})
		fmt.Fprintf(&script, "\n# %s\n", names[i])
		for _, d := range p.GetDocuments() {
			if err := writeDocument(&script, d); err != nil {
				return err
			}
		}
	}
	return a.print(out, func() { fmt.Fprint(a.stdout, script.String()) })
}

// writeDocument writes the command that gives a document to Vault. Its content is the
// gateway's word: it is quoted so that the shell takes it as it is.
func writeDocument(to *strings.Builder, d *controlv1.SourceDocument) error {
	var command string
	switch d.GetKind() {
	case "policy":
		command = "vault policy write " + shellQuote(d.GetName()) + " -"
	case "token_role":
		command = "vault write " + shellQuote("auth/token/roles/"+d.GetName()) + " -"
	default:
		return fmt.Errorf("the gateway names a document of an unknown kind, %q: this program is older than it", d.GetKind())
	}
	content := strings.TrimRight(d.GetContent(), "\n")
	if !printable([]byte(content)) {
		return fmt.Errorf("the document %q is not text", d.GetName())
	}
	end := "EOF"
	for lines := strings.Split(content, "\n"); slices.Contains(lines, end); {
		end += "F"
	}
	fmt.Fprintf(to, "\n%s <<'%s'\n%s\n%s\n", command, end, content, end)
	return nil
}

// shellQuote gives a word that the shell reads as s.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_./", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
