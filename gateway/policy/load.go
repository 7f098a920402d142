package policy

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// LoadDir reads the policy files of a directory, in order of name. What stands
// beside them must be documents (.md), test cases (.yaml) or hidden. Anything else,
// such as "payments.ceder" or a directory, is a problem, because somebody may believe
// it to be in force: the error is then a *CompileError with all of them.
func LoadDir(dir fs.FS) ([]File, error) {
	entries, err := fs.ReadDir(dir, ".")
	if err != nil {
		return nil, err
	}
	var files []File
	var problems []Problem
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		info, err := fs.Stat(dir, e.Name()) // of what a link points at, as in a mounted ConfigMap
		if err != nil {
			return nil, err
		}
		switch ext := path.Ext(e.Name()); {
		case !info.Mode().IsRegular() || ext != ".cedar" && ext != ".md" && ext != ".yaml":
			problems = append(problems, Problem{File: e.Name(), Message: "not a .cedar file"})
		case ext == ".cedar":
			if info.Size() > maxBytes {
				problems = append(problems, Problem{File: e.Name(), Message: fmt.Sprintf("more than %d bytes", maxBytes)})
				continue
			}
			content, err := fs.ReadFile(dir, e.Name())
			if err != nil {
				return nil, err
			}
			files = append(files, File{Name: e.Name(), Content: string(content)})
		}
	}
	if len(problems) > 0 {
		return nil, &CompileError{Problems: problems}
	}
	return files, nil
}

// Summary says what a policy is about, in words for people.
type Summary struct {
	ID     string
	File   string
	Line   int
	Effect string // "permit" or "forbid"
	// The scopes: "any", "any Workload", "Workload spiffe://…", "in Tenant tenants/acme",
	// for the action also "decrypt", "in plaintext" or a list of them.
	Principal, Action, Resource string
	// Conditions counts the when and unless clauses.
	Conditions int
}

// Policies summarizes the policies of the snapshot, in order of file and place.
func (s *Snapshot) Policies() []Summary {
	if s == nil {
		return nil
	}
	out := make([]Summary, len(s.rules))
	for i, r := range s.rules {
		tree := r.policy.AST()
		effect := "forbid"
		if r.policy.Effect() {
			effect = "permit"
		}
		out[i] = Summary{
			ID: string(r.id), File: r.file, Line: r.line, Effect: effect,
			Principal: inWords(tree.Principal), Action: inWords(tree.Action), Resource: inWords(tree.Resource),
			Conditions: len(tree.Conditions),
		}
	}
	return out
}

// inWords describes a scope.
func inWords(scope ast.IsScopeNode) string {
	switch s := scope.(type) {
	case ast.ScopeTypeAll:
		return "any"
	case ast.ScopeTypeIs:
		return "any " + shortType(string(s.Type))
	case ast.ScopeTypeEq:
		return entityInWords(string(s.Entity.Type), string(s.Entity.ID))
	case ast.ScopeTypeIn:
		return "in " + entityInWords(string(s.Entity.Type), string(s.Entity.ID))
	case ast.ScopeTypeIsIn:
		return "any " + shortType(string(s.Type)) + " in " + entityInWords(string(s.Entity.Type), string(s.Entity.ID))
	case ast.ScopeTypeInSet:
		names := make([]string, len(s.Entities))
		for i, e := range s.Entities {
			names[i] = entityInWords(string(e.Type), string(e.ID))
		}
		return strings.Join(names, ", ")
	default:
		panic(fmt.Sprintf("policy: unknown scope %T", scope))
	}
}

// entityInWords leaves out the type of an action.
func entityInWords(kind, id string) string {
	if kind == string(typeAction) {
		return id
	}
	return shortType(kind) + " " + id
}

func shortType(t string) string { return strings.TrimPrefix(t, "Sallyport::") }
