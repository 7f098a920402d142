package main

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// plain is a secret that tests can look into.
type plain map[string]string

func (p plain) Names() []string {
	names := make([]string, 0, len(p))
	for name := range p {
		names = append(names, name)
	}
	return names
}

func (p plain) Use(name string, f func([]byte) error) error { return f([]byte(p[name])) }

func TestASelectorIsARoleAndPerhapsAField(t *testing.T) {
	for text, want := range map[string]selector{
		"tenants/a/secretRoles/b":        {"tenants/a/secretRoles/b", ""},
		"tenants/a/secretRoles/b.c":      {"tenants/a/secretRoles/b", "c"},
		"tenants/a/secretRoles/b.c.d":    {"tenants/a/secretRoles/b", "c.d"},
		"tenants/a/secretRoles/b.c/d e=": {"tenants/a/secretRoles/b", "c/d e="},
		"tenants/a/secretRoles/b.":       {},
		"tenants/a/secretRoles/":         {},
		"tenants/a/secretRoles/.c":       {},
		"tenants//secretRoles/b":         {},
		"tenants/a/x/secretRoles/b":      {},
		"tenants/a/secretRoles/b/leases": {},
		"a/secretRoles/b":                {},
		"b.c":                            {},
		"":                               {},
	} {
		got, ok := parseSelector(text)
		if got != want || ok != (want != selector{}) {
			t.Errorf("%q: %+v, %v", text, got, ok)
		}
		if ok && got.String() != text {
			t.Errorf("%q is written as %q", text, got)
		}
	}
}

func TestAFieldIsGivenAsItIs(t *testing.T) {
	s := plain{"username": "u", "password": "p\x00\xff"}
	err := selector{"r", "password"}.use(s, func(v []byte) error {
		if string(v) != "p\x00\xff" {
			t.Errorf("%q", v)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	err = selector{"r", "pass"}.use(s, func([]byte) error { t.Error("called"); return nil })
	if err == nil || !strings.Contains(err.Error(), "it has password, username") {
		t.Error(err)
	}
	// All of them cannot be said in JSON, and the error does not say the value.
	err = selector{role: "r"}.use(s, func([]byte) error { t.Error("called"); return nil })
	if err == nil || !strings.Contains(err.Error(), `"password"`) || strings.Contains(err.Error(), "\xff") {
		t.Error(err)
	}
}

// What is made here by hand means to a JSON parser what went in.
func TestAllFieldsAreOneJSONObject(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := plain(rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "fields"))
		for name, value := range s {
			if !utf8.ValidString(name + value) {
				t.Skip()
			}
		}
		err := selector{role: "r"}.use(s, func(v []byte) error {
			got := plain{}
			if err := json.Unmarshal(v, &got); err != nil {
				t.Fatalf("%q: %v", v, err)
			}
			if len(got) != len(s) {
				t.Fatalf("%q", v)
			}
			for name := range s {
				if got[name] != s[name] {
					t.Fatalf("%q: %q, want %q", name, got[name], s[name])
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
