package policy

import "strings"

// maxStatement limits the bytes of one policy. It bounds the depth of the parser's
// and the evaluator's recursion, which Cedar itself does not: 32 KiB of opening
// parentheses cost some 100 MB of stack, while 1 MB of them would end the process.
const maxStatement = 32 << 10

// statement is a stretch of a policy file that ends with a semicolon or with the
// file.
type statement struct {
	text string
	line int  // of its first byte, from 1
	last bool // no semicolon follows
}

// statements cuts Cedar text after each semicolon that is neither in a string nor in
// a comment. Reading policies one by one is what lets a load report all problems of
// a file. Should this scanner and Cedar's ever disagree on where a policy ends, the
// piece does not parse as exactly one policy, and is refused.
func statements(text string) []statement {
	var out []statement
	start, line, startLine := 0, 1, 1
	inString, inComment := false, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\n':
			line++
			inComment = false
		case inComment:
		case inString:
			if c == '\\' && i+1 < len(text) && text[i+1] != '\n' {
				i++ // whatever is escaped does not end the string
			} else if c == '"' {
				inString = false
			}
		case c == '"':
			inString = true
		case c == '/' && strings.HasPrefix(text[i:], "//"):
			inComment = true
		case c == ';':
			out = append(out, newStatement(text[start:i+1], startLine))
			start, startLine = i+1, line
		}
	}
	if rest := newStatement(text[start:], startLine); rest.text != "" {
		rest.last = true
		out = append(out, rest)
	}
	return out
}

// newStatement leaves out the space before the statement.
func newStatement(text string, line int) statement {
	trimmed := strings.TrimLeft(text, " \t\r\n")
	return statement{text: trimmed, line: line + strings.Count(text[:len(text)-len(trimmed)], "\n")}
}
