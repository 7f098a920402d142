package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/gateway/policy"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

func (a *app) policyCommand() *cobra.Command {
	return group("policy", "Check, test, read and load policy", a.policyCheck(), a.policyTest(), a.policyGet(), a.policyLoad())
}

// policyFiles reads and compiles the policy files of a directory. None at all is an
// error: a policy that permits nothing is not made by a mistyped path.
func policyFiles(dir string) ([]policy.File, *policy.Snapshot, error) {
	files, err := policy.LoadDir(os.DirFS(dir))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", dir, err)
	}
	if len(files) == 0 {
		return nil, nil, fmt.Errorf("%s holds no policy file", dir)
	}
	snapshot, err := policy.Compile(files)
	return files, snapshot, err
}

func (a *app) policyGet() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "get", Short: "Show the policy in force, or write its files to a directory", Args: cobra.NoArgs,
	}
	n := a.connects(c, false)
	c.Flags().StringVar(&dir, "dir", "", "existing directory to write the files to; none is replaced")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return n.withControl(c.Context(), func(ctx context.Context, g *sallyport.Control) error {
			p, err := g.Policy.GetPolicy(ctx, &controlv1.GetPolicyRequest{})
			if err != nil {
				return err
			}
			if dir != "" {
				for _, f := range p.GetFiles() {
					// The name is the gateway's word, not a path of ours.
					if !filepath.IsLocal(f.GetName()) || filepath.Base(f.GetName()) != f.GetName() {
						return fmt.Errorf("the gateway's policy has a file name that is no name: %q", f.GetName())
					}
					if err := writeFile(filepath.Join(dir, f.GetName()), []byte(f.GetContent()), false); err != nil {
						return err
					}
				}
			}
			return a.printMessage(p, func() {
				fmt.Fprintf(a.stdout, "// revision %d, loaded %s, %s\n", p.GetRevision(), date(p.GetLoadTime()), plural(len(p.GetFiles()), "file"))
				if dir != "" {
					return
				}
				for _, f := range p.GetFiles() {
					fmt.Fprintf(a.stdout, "\n// file %s\n%s", f.GetName(), f.GetContent())
				}
			})
		})
	}
	return c
}

func (a *app) policyLoad() *cobra.Command {
	var revision uint64
	c := &cobra.Command{
		Use: "load DIR", Short: "Replace the whole policy by the files of a directory", Args: cobra.ExactArgs(1),
		Long: `Replace the whole policy by the files of a directory. It is checked here first, and again by the
gateway; a load that fails leaves the policy in force as it is.`,
	}
	n := a.connects(c, false)
	c.Flags().Uint64Var(&revision, "expected-revision", 0, "load only if this revision is in force")
	c.RunE = func(c *cobra.Command, args []string) error {
		files, _, err := policyFiles(args[0])
		if err != nil {
			return err
		}
		req := &controlv1.LoadPolicyRequest{ExpectedRevision: revision}
		for _, f := range files {
			req.Files = append(req.Files, &controlv1.PolicyFile{Name: f.Name, Content: f.Content})
		}
		return n.withControl(c.Context(), func(ctx context.Context, g *sallyport.Control) error {
			p, err := g.Policy.LoadPolicy(ctx, req)
			if err != nil {
				return err
			}
			return a.printMessage(p, func() {
				fmt.Fprintf(a.stdout, "revision %d is in force, %s\n", p.GetRevision(), plural(len(p.GetFiles()), "file"))
			})
		})
	}
	return c
}
