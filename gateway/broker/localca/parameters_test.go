package localca_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/gateway/fault"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

func TestParametersThatAreRefused(t *testing.T) {
	w := newWorld(t)
	names := func(names ...string) *controlv1.LocalCertificate { return &controlv1.LocalCertificate{DnsNames: names} }
	common := func(name string) *controlv1.LocalCertificate { return &controlv1.LocalCertificate{CommonName: name} }
	label := strings.Repeat("a", 63)
	long := strings.Join([]string{label, label, label, label[:61]}, ".") // 253
	many := make([]string, 17)
	for i := range many {
		many[i] = fmt.Sprintf("n%d.example.org", i)
	}
	for name, c := range map[string]struct {
		p    *controlv1.LocalCertificate
		good bool
	}{
		"nothing":               {&controlv1.LocalCertificate{}, true},
		"missing":               {nil, false},
		"a common name":         {common("Orders (EU) / 17 *"), true},
		"64 bytes":              {common(label + "a"), true},
		"65 bytes":              {common(label + "aa"), false},
		"space before":          {common(" orders"), false},
		"space after":           {common("orders "), false},
		"spaces":                {common("  "), false},
		"line feed":             {common("orders\nadmin"), false},
		"zero byte":             {common("orders\x00.example.org"), false},
		"delete":                {common("orders\x7f"), false},
		"not ASCII":             {common("ördérs"), false},
		"not UTF-8":             {common("orders\xff"), false},
		"right to left":         {common("orders\u202e"), false},
		"host names":            {names("orders.example.org", "orders", "a-1.b--2", "xn--bcher-kva.example"), true},
		"16 host names":         {names(many[:16]...), true},
		"17 host names":         {names(many...), false},
		"253 bytes":             {names(long), true},
		"254 bytes":             {names(long + "a"), false},
		"label of 64":           {names(label + "a.org"), false},
		"empty host name":       {names(""), false},
		"upper case":            {names("Orders.example.org"), false},
		"wildcard":              {names("*.example.org"), false},
		"underscore":            {names("_orders.example.org"), false},
		"trailing dot":          {names("orders.example.org."), false},
		"leading dot":           {names(".example.org"), false},
		"two dots":              {names("orders..org"), false},
		"leading hyphen":        {names("-orders.org"), false},
		"trailing hyphen":       {names("orders-.org"), false},
		"an address":            {names("10.0.0.1"), false},
		"a number":              {names("1"), false},
		"number as last label":  {names("orders.1"), false},
		"IPv6":                  {names("::1"), false},
		"URI":                   {names("spiffe://example.org/orders"), false},
		"e-mail":                {names("root@example.org"), false},
		"not ASCII in host":     {names("bücher.example"), false},
		"zero byte in host":     {names("orders.example.org\x00"), false},
		"the same twice":        {names("a.example.org", "b.example.org", "a.example.org"), false},
		"good and bad together": {names("a.example.org", "b_.example.org"), false},
	} {
		err := w.Check(certificate(c.p))
		if c.good && err != nil || !c.good && !errors.Is(err, fault.New(fault.InvalidArgument, "")) {
			t.Errorf("%s: %v", name, err)
		}
		o := w.order()
		o.Role.Parameters = certificate(c.p)
		ticket, prepared := w.Prepare(t.Context(), o)
		if (prepared == nil) != (err == nil) {
			t.Errorf("%s: checked %v, prepared %v", name, err, prepared)
		}
		if prepared == nil {
			if _, err := ticket.Issue(t.Context()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestTheWorkloadsRegistrationIsTheDefaultName(t *testing.T) {
	w := newWorld(t)
	o := w.order()
	o.Role.Parameters = certificate(&controlv1.LocalCertificate{CommonName: "orders of Acme"})
	if got := w.issue(t, o).leaf.Subject.String(); got != "CN=orders of Acme,OU=orders,O=acme" {
		t.Errorf("subject %s", got)
	}
	for _, bad := range []string{"", "orders\n", strings.Repeat("a", 65)} {
		o := w.order()
		o.Registration = bad
		if _, err := w.Prepare(t.Context(), o); !errors.Is(err, fault.New(fault.InvalidArgument, "")) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// The grammars once more, as regular expressions.
var (
	commonName = regexp.MustCompile(`^[!-~]([ -~]{0,62}[!-~])?$`)
	hostName   = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	number     = regexp.MustCompile(`^[0-9]+$`)
)

// Whatever is accepted is in the certificate exactly, and nothing else is.
func TestAcceptedParametersAreInTheCertificateAsTheyAre(t *testing.T) {
	w := newWorld(t)
	texts := rapid.OneOf(
		rapid.String(), rapid.StringMatching(`[ -~]{0,70}`), rapid.StringMatching(`([a-zA-Z0-9_-]{1,5}\.){0,3}[a-z0-9-]{0,5}`),
		rapid.StringMatching(`([a-z0-9]{1,60}\.){3,5}[a-z]{1,60}`),
	)
	rapid.Check(t, func(rt *rapid.T) {
		p := &controlv1.LocalCertificate{CommonName: texts.Draw(rt, "common name"), DnsNames: rapid.SliceOfN(texts, 0, 4).Draw(rt, "names")}
		good := p.GetCommonName() == "" || commonName.MatchString(p.GetCommonName())
		for i, n := range p.GetDnsNames() {
			last := n[strings.LastIndexByte(n, '.')+1:]
			good = good && len(n) <= 253 && hostName.MatchString(n) && !number.MatchString(last) && !slices.Contains(p.GetDnsNames()[:i], n)
		}
		if err := w.Check(certificate(p)); (err == nil) != good {
			rt.Fatalf("%q %q: %v", p.GetCommonName(), p.GetDnsNames(), err)
		}
		if !good {
			return
		}
		o := w.order()
		o.Role.Parameters = certificate(p)
		want := p.GetCommonName()
		if want == "" {
			want = o.Registration
		}
		leaf := w.issue(t, o).leaf
		if leaf.Subject.CommonName != want || !slices.Equal(leaf.DNSNames, p.GetDnsNames()) || len(leaf.Subject.Names) != 3 {
			rt.Fatalf("%q %q", leaf.Subject.String(), leaf.DNSNames)
		}
	})
}

// Another implementation's opinion of the chain.
func TestOpenSSLVerifiesTheChain(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("openssl is not installed; make test installs it")
	}
	w := newWorld(t)
	i := w.issue(t, w.order())
	dir := t.TempDir()
	for name, field := range map[string]string{"leaf": "certificate", "key": "private_key"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(i.fields[field]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), openssl, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	// The authority's file is a PEM file of its certificate to everybody else.
	for purpose, good := range map[string]bool{"sslclient": true, "sslserver": false} {
		out, err := run("verify", "-x509_strict", "-purpose", purpose, "-CAfile", w.path, "leaf")
		if (err == nil) != good {
			t.Errorf("%s: %v: %s", purpose, err, out)
		}
	}
	of, err1 := run("x509", "-in", "leaf", "-noout", "-pubkey")
	from, err2 := run("pkey", "-in", "key", "-pubout")
	if err1 != nil || err2 != nil || of != from {
		t.Errorf("the key is not the certificate's: %v %v\n%s%s", err1, err2, of, from)
	}
}
