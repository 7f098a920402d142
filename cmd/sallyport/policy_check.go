package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/gateway/policy"
	"github.com/sallyport/sallyport/gateway/policy/cases"
)

// checked is the JSON form of a check.
type checked struct {
	OK       bool            `json:"ok"`
	Problems []policyProblem `json:"problems,omitempty"`
	Policies []policySummary `json:"policies,omitempty"`
}

type policyProblem struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Policy  string `json:"policy,omitempty"`
	Message string `json:"message"`
}

type policySummary struct {
	ID         string `json:"id"`
	File       string `json:"file"`
	Line       int    `json:"line"`
	Effect     string `json:"effect"`
	Principal  string `json:"principal"`
	Action     string `json:"action"`
	Resource   string `json:"resource"`
	Conditions int    `json:"conditions"`
}

func (a *app) policyCheck() *cobra.Command {
	return &cobra.Command{
		Use: "check DIR", Short: "Validate policy files, offline, and explain them", Args: cobra.ExactArgs(1),
		Long: `Validate the policy files of a directory, offline. All that is wrong is listed; if nothing is, every
policy is summed up: whom it permits or forbids what, and under how many conditions.`,
		RunE: func(_ *cobra.Command, args []string) error {
			_, snapshot, err := policyFiles(args[0])
			var wrong *policy.CompileError
			if err != nil && !errors.As(err, &wrong) {
				return err
			}
			c := checked{OK: err == nil}
			for _, p := range snapshot.Policies() {
				c.Policies = append(c.Policies, policySummary(p))
			}
			if wrong != nil {
				for _, p := range wrong.Problems {
					c.Problems = append(c.Problems, policyProblem(p))
				}
				err = fmt.Errorf("%w: %s", errUnverified, plural(len(wrong.Problems), "problem"))
			}
			return errors.Join(a.print(c, func() { a.showChecked(c) }), err)
		},
	}
}

func (a *app) showChecked(c checked) {
	for _, p := range c.Problems {
		fmt.Fprintln(a.stdout, policy.Problem(p))
	}
	var rows [][]string
	for _, p := range c.Policies {
		rows = append(rows, []string{p.ID, p.Effect, p.Principal, p.Action, p.Resource, fmt.Sprint(p.Conditions)})
	}
	a.table("POLICY EFFECT PRINCIPAL ACTION RESOURCE CONDITIONS", rows)
	if c.OK {
		fmt.Fprintf(a.stdout, "ok: %s\n", counted(len(c.Policies), "policy", "policies"))
	}
}

// tested is the JSON form of a test.
type tested struct {
	OK     bool         `json:"ok"`
	Failed int          `json:"failed"`
	Cases  []testedCase `json:"cases"`
}

type testedCase struct {
	Name     string   `json:"name"`
	Pass     bool     `json:"pass"`
	Message  string   `json:"message,omitempty"`
	Allow    bool     `json:"allow"`
	Reason   string   `json:"reason"`
	Policies []string `json:"policies,omitempty"`
	Errors   []string `json:"errors,omitempty"`
}

func (a *app) policyTest() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "test FILE", Short: "Run allow and deny cases against policy files, offline", Args: cobra.ExactArgs(1),
		Long: `Run the cases of a YAML file against the policy files of a directory, offline. Exit status 5 says that
a case failed. docs/policy.md describes the file.`,
		Example: `  sallyport policy test policy/cases.yaml`,
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			suite, err := cases.Parse(text)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			_, snapshot, err := policyFiles(first(dir, filepath.Dir(args[0])))
			if err != nil {
				return err
			}
			t := tested{Cases: []testedCase{}}
			for _, r := range suite.Run(snapshot) {
				if !r.Pass {
					t.Failed++
				}
				d := r.Decision
				t.Cases = append(t.Cases, testedCase{r.Name, r.Pass, r.Message, d.Allow, d.Reason.String(), d.Policies, d.Errors})
			}
			t.OK = t.Failed == 0
			if !t.OK {
				err = fmt.Errorf("%w: %s failed", errUnverified, plural(t.Failed, "case"))
			}
			return errors.Join(a.print(t, func() { a.showTested(t) }), err)
		},
	}
	c.Flags().StringVar(&dir, "policy", "", "directory of the policy files (default: where FILE is)")
	return c
}

func (a *app) showTested(t tested) {
	for _, c := range t.Cases {
		if c.Pass {
			fmt.Fprintf(a.stdout, "ok    %s\n", c.Name)
		} else {
			fmt.Fprintf(a.stdout, "FAIL  %s: %s\n", c.Name, c.Message)
		}
	}
	if t.OK {
		fmt.Fprintf(a.stdout, "ok: %s\n", plural(len(t.Cases), "case"))
	}
}
