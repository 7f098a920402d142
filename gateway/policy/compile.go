package policy

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	cedar "github.com/cedar-policy/cedar-go"
)

// The limits of a policy.
const (
	maxFiles = 1024
	maxBytes = 16 << 20 // of all files together
)

// ErrInvalid is wrapped by every *CompileError.
var ErrInvalid = errors.New("policy: not valid")

// CompileError lists everything that is wrong with a policy.
type CompileError struct {
	Problems []Problem // in order of file and line
}

// Error gives the problems, one a line.
func (e *CompileError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives ErrInvalid.
func (e *CompileError) Unwrap() error { return ErrInvalid }

// Problem is one thing that is wrong.
type Problem struct {
	File    string
	Line    int    // from 1; 0 if the file as a whole is meant
	Policy  string // the policy's id, "" if it has none
	Message string
}

// String gives "file:line: policy: message" without the parts that are not known.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	if p.Policy != "" {
		fmt.Fprintf(&b, ": %s", p.Policy)
	}
	fmt.Fprintf(&b, ": %s", p.Message)
	return b.String()
}

// Compile parses and validates a policy and makes it ready to decide. The error is a
// *CompileError with all problems, and there is then no snapshot. No files at all
// are a policy too: it permits nothing. The snapshot's revision is 0; see At.
//
// A policy's id is "{file name without .cedar}/{its annotation @id}"; it does not
// depend on the policy's place in the file. Every policy must have one.
func Compile(files []File) (*Snapshot, error) {
	c := compiler{validators: validators{}, lines: map[string]int{}}
	c.files(files)
	if len(c.problems) > 0 {
		slices.SortStableFunc(c.problems, func(a, b Problem) int {
			return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
		})
		return nil, &CompileError{Problems: c.problems}
	}
	return newSnapshot(c.rules), nil
}

// rule is a compiled policy.
type rule struct {
	id      cedar.PolicyID
	policy  *cedar.Policy
	file    string
	line    int
	actions actionSet // that the scope admits
	uses    vocabulary
}

type compiler struct {
	validators validators
	lines      map[string]int // where each policy id stands in its file
	rules      []rule
	problems   []Problem
}

func (c *compiler) problem(file string, line int, id, format string, args ...any) {
	c.problems = append(c.problems, Problem{file, line, id, fmt.Sprintf(format, args...)})
}

// The grammars of file names and ids keep policy ids short, printable, free of
// spaces, and apart from the guards' ids, which contain a colon.
var (
	fileName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.cedar$`)
	idGrammar  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)
	wantName   = `want 1 to 100 of A-Z, a-z, 0-9, ".", "_" and "-", beginning with a letter or digit`
	wantFileIs = wantName + `, and ".cedar"`
)

func (c *compiler) files(files []File) {
	if len(files) > maxFiles {
		c.problem("policy", 0, "", "%d files; the limit is %d", len(files), maxFiles)
		return
	}
	seen := map[string]bool{}
	total := 0
	for _, f := range files {
		total += len(f.Content)
		switch {
		case !fileName.MatchString(f.Name):
			c.problem(fmt.Sprintf("%.120q", f.Name), 0, "", "bad file name: %s", wantFileIs)
		case seen[f.Name]:
			c.problem(f.Name, 0, "", "file given twice")
		case total > maxBytes:
			c.problem(f.Name, 0, "", "the files have more than %d bytes in all", maxBytes)
			return
		default:
			seen[f.Name] = true
			c.file(f)
		}
	}
}

func (c *compiler) file(f File) {
	for _, s := range statements(f.Content) {
		if len(s.text) > maxStatement {
			c.problem(f.Name, s.line, "", "policy of %d bytes; the limit is %d", len(s.text), maxStatement)
			continue
		}
		parsed, err := cedar.NewPolicyListFromBytes(f.Name, []byte(s.text))
		switch {
		case err != nil:
			line, message := parseProblem(s, err)
			c.problem(f.Name, line, "", "%s", message)
		case len(parsed) == 0 && s.last: // a comment at the end
		case len(parsed) != 1:
			c.problem(f.Name, s.line, "", "want one policy before each semicolon, found %d", len(parsed))
		default:
			c.policy(f.Name, s.line+parsed[0].Position().Line-1, parsed[0])
		}
	}
}

// parsePosition is how the parser's message begins.
var parsePosition = regexp.MustCompile(`^parser error: parse error at <input>:(\d+):(\d+) `)

// parseProblem takes the position in the statement out of the parser's message, and
// gives the line in the file.
func parseProblem(s statement, err error) (line int, message string) {
	message = err.Error()
	at := parsePosition.FindStringSubmatch(message)
	if at == nil {
		return s.line, message
	}
	n, _ := strconv.Atoi(at[1]) // digits, by the pattern
	return s.line + n - 1, fmt.Sprintf("column %s: at %s", at[2], message[len(at[0]):])
}

// policy takes a parsed policy in, if it has an id and fits the schema.
func (c *compiler) policy(file string, line int, p *cedar.Policy) {
	local, ok := p.Annotations()["id"]
	switch {
	case !ok:
		c.problem(file, line, "", `no @id("…") annotation`)
		return
	case !idGrammar.MatchString(string(local)):
		c.problem(file, line, "", "bad @id: %s", wantName)
		return
	}
	id := strings.TrimSuffix(file, ".cedar") + "/" + string(local)
	if first, taken := c.lines[id]; taken {
		c.problem(file, line, id, "duplicate @id; the first is on line %d", first)
		return
	}
	c.lines[id] = line

	uses := vocabularyOf(p)
	if reasons := c.validators.check(p, uses); len(reasons) > 0 {
		for _, reason := range reasons {
			c.problem(file, line, id, "%s", reason)
		}
		return
	}
	tree := p.AST()
	tree.Position.Line = line
	c.rules = append(c.rules, rule{
		id: cedar.PolicyID(id), policy: p, file: file, line: line,
		actions: actionsOf(tree.Action), uses: uses,
	})
}
