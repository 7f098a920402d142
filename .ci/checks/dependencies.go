package checks

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
)

// Dependencies is what docs/dependencies.md says: for each heading, the modules in
// the rows of its table. A row is "| `module` | why |".
func Dependencies(document []byte) (map[string][]string, error) {
	rows := map[string][]string{}
	heading := ""
	for n, line := range strings.Split(string(document), "\n") {
		if h, ok := strings.CutPrefix(line, "## "); ok {
			heading = strings.TrimSpace(h)
			continue
		}
		m := dependencyRow.FindStringSubmatch(line)
		switch {
		case m == nil:
		case strings.TrimSpace(m[2]) == "":
			return nil, fmt.Errorf("line %d: %s has no reason", n+1, m[1])
		default:
			rows[heading] = append(rows[heading], m[1])
		}
	}
	return rows, nil
}

var dependencyRow = regexp.MustCompile("^\\| *`([^`]+)` *\\|(.*?)\\|")

// Direct lists the modules that the product imports itself: in its programs, and in
// its tests only. What go.mod calls direct and no package that we see imports (it
// may be behind a build tag) counts as of the programs.
func Direct(g Graph, mod *modfile.File) (programs, testsOnly []string) {
	inProgram, inTest := map[string]bool{}, map[string]bool{}
	collect := func(into map[string]bool, imports []string) {
		for _, i := range imports {
			if to := g[i]; to != nil && to.Module != "" && to.Module != own {
				into[to.Module] = true
			}
		}
	}
	for _, p := range g {
		switch {
		case !p.Own:
		case isTestPackage(p.Name):
			collect(inTest, p.Imports)
		default:
			collect(inProgram, p.Imports)
		}
		if p.Own {
			collect(inTest, p.TestImports)
		}
	}
	for _, r := range mod.Require {
		if !r.Indirect && !inTest[r.Mod.Path] {
			inProgram[r.Mod.Path] = true
		}
	}
	for m := range inProgram {
		programs = append(programs, m)
	}
	for m := range inTest {
		if !inProgram[m] {
			testsOnly = append(testsOnly, m)
		}
	}
	slices.Sort(programs)
	slices.Sort(testsOnly)
	return programs, testsOnly
}

// Tools lists the modules of the tool lines of a go.mod.
func Tools(mod *modfile.File) []string {
	var tools []string
	for _, t := range mod.Tool {
		best := ""
		for _, r := range mod.Require {
			if matches(r.Mod.Path+"/...", t.Path) && len(r.Mod.Path) > len(best) {
				best = r.Mod.Path
			}
		}
		tools = append(tools, best)
	}
	slices.Sort(tools)
	return slices.Compact(tools)
}

// Compare lists the differences between the modules that are and those written down.
func Compare(heading string, are, written []string) []string {
	var found []string
	for _, m := range are {
		if !slices.Contains(written, m) {
			found = append(found, fmt.Sprintf("%s is used and not listed under %q", m, heading))
		}
	}
	for _, m := range written {
		if !slices.Contains(are, m) {
			found = append(found, fmt.Sprintf("%s is listed under %q and not used there", m, heading))
		}
	}
	return found
}
