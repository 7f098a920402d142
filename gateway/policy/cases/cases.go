// Package cases runs test cases for a policy: questions with the answers that their
// author expects, as data in YAML. docs/policy.md describes the format.
package cases

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/sallyport/sallyport/gateway/policy"
)

// Suite is a file of cases.
type Suite struct {
	Cases []Case `yaml:"cases"`
}

// Case is a question and the expected answer.
type Case struct {
	Name      string    `yaml:"name"`
	Principal Principal `yaml:"principal"`
	Action    string    `yaml:"action"`   // as in the schema, "batchDecrypt"
	Resource  string    `yaml:"resource"` // "gateway" or a name, "tenants/acme/keyrings/cards"
	Context   Context   `yaml:"context"`
	Expect    string    `yaml:"expect"` // "allow" or "deny"
	// Policies are the ids that must determine the decision, if set.
	Policies []string `yaml:"policies"`

	request policy.Request
}

// Principal is a workload or an operator; exactly one of the two is set.
type Principal struct {
	Workload     string `yaml:"workload"`     // SPIFFE id
	Registration string `yaml:"registration"` // id of its registration
	Automation   bool   `yaml:"automation"`
	Operator     string `yaml:"operator"` // name
}

// Context is what else the case says. What it leaves out is as in an ordinary call:
// the resource's tenant, an active caller, and a person in the chain only for an
// operator.
type Context struct {
	Tenant       *string           `yaml:"tenant"`
	Inactive     bool              `yaml:"inactive"`
	HumanInChain *bool             `yaml:"humanInChain"`
	Time         time.Time         `yaml:"time"` // RFC 3339
	Encryption   map[string]string `yaml:"encryption"`
}

// Parse reads a suite. It refuses unknown fields and lists everything that is wrong
// with the cases.
func Parse(text []byte) (*Suite, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	var s Suite
	if err := d.Decode(&s); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("no cases")
		}
		return nil, err
	}
	var more any
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("the file holds more than one document")
	}
	if len(s.Cases) == 0 {
		return nil, errors.New("no cases")
	}
	var errs []error
	names := map[string]bool{}
	for i := range s.Cases {
		c := &s.Cases[i]
		if names[c.Name] {
			errs = append(errs, fmt.Errorf("case %d: the name %q is taken", i+1, c.Name))
		}
		names[c.Name] = true
		if err := c.prepare(); err != nil {
			errs = append(errs, fmt.Errorf("case %d (%s): %w", i+1, c.Name, err))
		}
	}
	return &s, errors.Join(errs...)
}

// prepare makes the case's request.
func (c *Case) prepare() error {
	var errs []error
	check := func(ok bool, message string) {
		if !ok {
			errs = append(errs, errors.New(message))
		}
	}
	check(c.Name != "", "want a name")
	check(c.Expect == "allow" || c.Expect == "deny", `expect: want "allow" or "deny"`)
	p := c.Principal
	check((p.Workload == "") != (p.Operator == ""), "principal: want a workload or an operator")
	check(p.Operator == "" || p.Registration == "" && !p.Automation, "principal: registration and automation are of workloads")

	action, err := policy.ParseAction(c.Action)
	check(err == nil, fmt.Sprintf("action: unknown %q", c.Action))
	resource, err := policy.ParseResource(c.Resource)
	if err != nil {
		errs = append(errs, fmt.Errorf("resource: %w", err))
	} else if action.Valid() {
		check(resource.Kind() == action.Resource(), fmt.Sprintf("resource: %v is about a %v", action, action.Resource()))
	}
	c.request = policy.Request{
		Principal: policy.NewOperator(p.Operator), Action: action, Resource: resource, Context: c.context(resource),
	}
	if p.Workload != "" {
		c.request.Principal = policy.NewWorkload(p.Workload, p.Registration, p.Automation)
	}
	return errors.Join(errs...)
}

func (c *Case) context(r policy.Resource) policy.Context {
	out := policy.Context{
		Tenant: r.Tenant(), Standing: policy.StandingActive, Chain: policy.ChainMachine,
		Encryption: c.Context.Encryption,
	}
	if c.Context.Tenant != nil {
		out.Tenant = *c.Context.Tenant
	}
	if c.Context.Inactive {
		out.Standing = policy.StandingInactive
	}
	human := c.Principal.Operator != ""
	if c.Context.HumanInChain != nil {
		human = *c.Context.HumanInChain
	}
	if human {
		out.Chain = policy.ChainHuman
	}
	if !c.Context.Time.IsZero() {
		out.Time = c.Context.Time.Unix()
	}
	return out
}

// Result is the outcome of a case.
type Result struct {
	Name     string
	Pass     bool
	Message  string // what differs, or "" if it passed
	Decision policy.Decision
}

// Run asks the snapshot every question, in order.
func (s *Suite) Run(snapshot *policy.Snapshot) []Result {
	out := make([]Result, len(s.Cases))
	for i := range s.Cases {
		out[i] = s.Cases[i].run(snapshot)
	}
	return out
}

func (c *Case) run(snapshot *policy.Snapshot) Result {
	d := snapshot.Decide(c.request)
	r := Result{Name: c.Name, Decision: d}
	var differs []string
	if got := answer(d); got != c.Expect {
		differs = append(differs, fmt.Sprintf("want %s, got %s: %s", c.Expect, got, explain(d)))
	}
	if want := slices.Sorted(slices.Values(c.Policies)); c.Policies != nil && !slices.Equal(want, d.Policies) {
		differs = append(differs, fmt.Sprintf("want it determined by %s, got %s", list(want), list(d.Policies)))
	}
	r.Message = strings.Join(differs, "; ")
	r.Pass = r.Message == ""
	return r
}

func answer(d policy.Decision) string {
	if d.Allow {
		return "allow"
	}
	return "deny"
}

func explain(d policy.Decision) string {
	text := d.Reason.String()
	if len(d.Policies) > 0 {
		text += " (" + list(d.Policies) + ")"
	}
	if len(d.Errors) > 0 {
		text += ", errors in " + list(d.Errors)
	}
	return text
}

func list(ids []string) string {
	if len(ids) == 0 {
		return "none"
	}
	return strings.Join(ids, ", ")
}
