package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sallyport/sallyport/crypto/secret"
)

// fields are the named parts of a secret; a *sallyport.Secret has them.
type fields interface {
	Names() []string
	Use(name string, f func(value []byte) error) error
}

// selector says which part of which secret is meant: a role and one of its fields, or
// all of them.
type selector struct {
	role  string
	field string // "" is all, as one JSON object
}

// parseSelector reads tenants/{tenant}/secretRoles/{role}[.{field}]. Ids have no dot,
// fields may.
func parseSelector(text string) (selector, bool) {
	parent, rest, ok := strings.Cut(text, rolesSegment)
	tenant, underTenants := strings.CutPrefix(parent, "tenants/")
	role, field, dotted := strings.Cut(rest, ".")
	if !ok || !underTenants || tenant == "" || role == "" || strings.Contains(tenant+role, "/") || dotted && field == "" {
		return selector{}, false
	}
	return selector{parent + rolesSegment + role, field}, true
}

func (s selector) String() string {
	if s.field == "" {
		return s.role
	}
	return s.role + "." + s.field
}

// use calls f with what is selected from the secret. f must not keep it.
func (s selector) use(from fields, f func(value []byte) error) error {
	if s.field == "" {
		return useAll(from, f)
	}
	if err := s.check(from); err != nil {
		return err
	}
	return from.Use(s.field, f)
}

// check refuses a field that the secret does not have.
func (s selector) check(from fields) error {
	names := from.Names()
	if s.field == "" || slices.Contains(names, s.field) {
		return nil
	}
	slices.Sort(names)
	return fmt.Errorf("%s has no field %q; it has %s", s.role, s.field, strings.Join(names, ", "))
}

// useAll calls f with one JSON object that has all fields.
func useAll(from fields, f func(value []byte) error) error {
	return useJSON(from, from.Names(), "", "\n", f)
}

// useJSON calls f with one JSON object that has the named fields in the order of their
// names, between two texts. It is made here and not by encoding/json, which leaves
// copies that nobody wipes.
func useJSON(from fields, names []string, before, after string, f func(value []byte) error) error {
	slices.Sort(names)
	size := len(before) + len("{}") + len(after)
	for _, name := range names {
		err := from.Use(name, func(value []byte) error {
			if !utf8.Valid(value) {
				return fmt.Errorf("the field %q is not text, which JSON can hold; name it by itself", name)
			}
			size += len(`"":"",`) + escapedMax*(len(name)+len(value))
			return nil
		})
		if err != nil {
			return err
		}
	}
	out := make([]byte, 0, size) // so that appending never leaves a copy behind
	defer func() { secret.Wipe(out[:cap(out)]) }()
	out = append(append(out, before...), '{')
	for i, name := range names {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(appendJSON(out, []byte(name)), ':')
		err := from.Use(name, func(value []byte) error { out = appendJSON(out, value); return nil })
		if err != nil {
			return err
		}
	}
	return f(append(append(out, '}'), after...))
}

// escapedMax is the longest form of a byte in appendJSON, \u001f.
const escapedMax = 6

// appendJSON appends text as a JSON string (RFC 8259, 7). The text is valid UTF-8.
func appendJSON(to, text []byte) []byte {
	const digits = "0123456789abcdef"
	to = append(to, '"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			to = append(to, '\\', c)
		case c == '\n':
			to = append(to, `\n`...)
		case c < ' ':
			to = append(to, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			to = append(to, c)
		}
	}
	return append(to, '"')
}
