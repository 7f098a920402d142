// Package checks holds the rules of the tree that no compiler or linter knows: who
// may import whom, which dependencies are known and which are refused, and what may
// lie in the repository. It is a module of its own so that the product's go.mod
// knows nothing of it.
package checks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
)

// own is the path of the product's module.
const own = "github.com/sallyport/sallyport"

// Package is what the rules need to know about a package. Packages of the product
// are named by their folder ("gateway/policy"), others by import path.
type Package struct {
	Name        string
	Own         bool
	Module      string   // empty for the standard library
	Imports     []string // of the program
	TestImports []string // of its tests, inside and outside the package
}

// Graph is the packages of the product and all they depend on, by name.
type Graph map[string]*Package

// Load reads the graph of the module in root. A package that does not compile is
// read as far as its import clauses go: building is not what this checks.
func Load(root string) (Graph, error) {
	cmd := exec.Command("go", "list", "-e", "-deps", "-test",
		"-json=ImportPath,Imports,TestImports,XTestImports,Module", "./...")
	cmd.Dir = root
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	graph, err := decode(out)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, stderr.String())
	}
	return graph, nil
}

func decode(r io.Reader) (Graph, error) {
	graph := Graph{}
	for dec := json.NewDecoder(r); ; {
		var listed struct {
			ImportPath                         string
			Imports, TestImports, XTestImports []string
			Module                             *struct{ Path string }
		}
		if err := dec.Decode(&listed); err == io.EOF {
			return graph, nil
		} else if err != nil {
			return nil, err
		}
		// The variants made for testing repeat what TestImports says.
		if strings.Contains(listed.ImportPath, " [") || strings.HasSuffix(listed.ImportPath, ".test") {
			continue
		}
		p := &Package{Name: name(listed.ImportPath), Own: isOwn(listed.ImportPath)}
		if listed.Module != nil {
			p.Module = listed.Module.Path
		}
		for _, i := range listed.Imports {
			p.Imports = append(p.Imports, name(i))
		}
		for _, i := range slices.Concat(listed.TestImports, listed.XTestImports) {
			p.TestImports = append(p.TestImports, name(i))
		}
		graph[p.Name] = p
	}
}

// Links lists what a program consists of, itself excluded.
func (g Graph) Links(program string) []string {
	seen := map[string]bool{program: true}
	var links []string
	for queue := []string{program}; len(queue) > 0; queue = queue[1:] {
		p := g[queue[0]]
		if p == nil {
			continue
		}
		for _, i := range p.Imports {
			if !seen[i] {
				seen[i] = true
				links = append(links, i)
				queue = append(queue, i)
			}
		}
	}
	slices.Sort(links)
	return links
}

func isOwn(path string) bool { return path == own || strings.HasPrefix(path, own+"/") }

func name(path string) string { return strings.TrimPrefix(path, own+"/") }

// matches tells whether a name is meant by a pattern: itself, or for "a/..." a and
// everything below it.
func matches(pattern, name string) bool {
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return name == tree || strings.HasPrefix(name, tree+"/")
	}
	return name == pattern
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, name) })
}
