package policy

import (
	"fmt"
	"maps"
	"slices"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
)

// unknownNames gives what a policy's conditions name that the schema does not have.
// Cedar's validator types "principal has nam" and "principal is Sallyport::Opreator"
// as false and does not look into what follows: for Cedar they are sound, for us
// they are typing errors, and an unless turns them into permission.
func unknownNames(p *cedar.Policy) []string {
	var found []string
	for _, c := range (*ast.Policy)(p.AST()).Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			if reason := unknownName(n); reason != "" {
				found = append(found, reason)
			}
			return true
		})
	}
	return found
}

func unknownName(n ast.IsNode) string {
	switch n := n.(type) {
	case ast.NodeTypeHas:
		return unknownAttribute(n.StrOpNode)
	case ast.NodeTypeAccess:
		return unknownAttribute(n.StrOpNode)
	case ast.NodeTypeIs:
		return unknownType(n.EntityType)
	case ast.NodeTypeIsIn:
		return unknownType(n.EntityType)
	case ast.NodeTypeHasTag, ast.NodeTypeGetTag:
		return "the schema has no tags"
	}
	return ""
}

func unknownType(t cedar.EntityType) string {
	if _, ok := builtinSchema.Entities[t]; ok {
		return ""
	}
	return fmt.Sprintf("unrecognized entity type `%s`", t)
}

func unknownAttribute(n ast.StrOpNode) string {
	if inner, ok := n.Arg.(ast.NodeTypeAccess); ok && isEncryption(inner.StrOpNode) {
		return "" // the caller chooses these names
	}
	of, known := "any entity, nor of the context", everyAttribute
	if v, ok := n.Arg.(ast.NodeTypeVariable); ok {
		of, known = string(v.Name), variableAttributes[v]
	}
	if slices.Contains(known, n.Value) {
		return ""
	}
	return fmt.Sprintf("`%s` is not an attribute of %s", n.Value, of)
}

// isEncryption reports whether n reads the encryption context.
func isEncryption(n ast.StrOpNode) bool {
	return n.Value == "encryption" && n.Arg == ast.IsNode(ast.NewContextNode())
}

var (
	variableAttributes = attributesOfSchema()
	everyAttribute     = slices.Concat(slices.Collect(maps.Values(variableAttributes))...)
)

// attributesOfSchema gives the attributes that some type of each variable has.
func attributesOfSchema() map[ast.NodeTypeVariable][]cedar.String {
	out := map[ast.NodeTypeVariable][]cedar.String{}
	add := func(v ast.NodeTypeVariable, shape resolved.RecordType) {
		out[v] = slices.AppendSeq(out[v], maps.Keys(shape))
	}
	for _, a := range Actions() {
		to := builtinSchema.Actions[actionEntities[a].UID].AppliesTo
		add(ast.NewContextNode(), to.Context)
		for _, t := range to.Principals {
			add(ast.NewPrincipalNode(), builtinSchema.Entities[t].Shape)
		}
		for _, t := range to.Resources {
			add(ast.NewResourceNode(), builtinSchema.Entities[t].Shape)
		}
	}
	for v := range out {
		slices.Sort(out[v])
		out[v] = slices.Compact(out[v])
	}
	return out
}
