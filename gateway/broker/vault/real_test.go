package vault_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/broker/vaulttest"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/gateway/lease/leasetest"
)

func TestDatabaseCredentialsKeepThePromisesOfSources(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	leasetest.Source(t, leasetest.Lab{
		Source: l.source(t, database("app")), Role: database("app"), Fields: []string{"password", "username"},
		Renewable: true, Revocable: true,
		Works: func(v lease.Value) bool { return l.pg.Login(text(t, v, "username"), text(t, v, "password")) == nil },
	})
}

func TestCertificatesKeepThePromisesOfSources(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	leasetest.Source(t, leasetest.Lab{
		Source: l.source(t, certificate()), Role: certificate(), Revocable: true,
		Fields: []string{"ca_chain", "certificate", "issuing_ca", "private_key", "serial_number"},
	})
}

func TestRolesAppearWithTheLeaseAndVanishWithTheRevocation(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := l.source(t, database("app"))
	issued, anchor := issue(t, s, order(database("app"), time.Minute))
	user := text(t, issued.Value, "username")
	if got := l.pg.Roles(user); !slices.Equal(got, []string{user}) {
		t.Errorf("roles %q", got)
	}
	check(t, l.pg.Login(user, text(t, issued.Value, "password")))
	check(t, s.Revoke(t.Context(), anchor))
	if got := l.pg.Roles(user); len(got) != 0 {
		t.Errorf("roles %q after revoking", got)
	}
}

func TestKVGivesVersionsAndCannotBeRevoked(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := l.source(t, kv("team/app"))
	put := func(data map[string]any) {
		l.Must(http.MethodPost, "secret/data/team/app", map[string]any{"data": data})
	}
	put(map[string]any{"password": "first"})
	put(map[string]any{"password": "se\"cond\u2028", "port": 5432, "list": []string{"a", "b"}, "none": nil})
	version, err := s.Newest(t.Context(), kv("team/app").Parameters)
	check(t, err)
	issued, anchor := issue(t, s, order(kv("team/app"), time.Minute))
	if version != 2 || issued.Version != 2 || issued.Revocable || issued.Renewable || issued.Ref != "" {
		t.Errorf("newest %d, issued %+v", version, issued)
	}
	for name, want := range map[string]string{"password": "se\"cond\u2028", "port": "5432", "list": `["a","b"]`, "none": "null"} {
		if got := text(t, issued.Value, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	between(t, "expires", issued.Expires, time.Now().Add(50*time.Second), time.Now().Add(time.Minute))
	check(t, s.Revoke(t.Context(), anchor))
	_, err = s.Renew(t.Context(), anchor, time.Minute, time.Now().Add(time.Hour))
	wantReason(t, "renewing", err, fault.LeaseNotRenewable)

	l.Must(http.MethodDelete, "secret/data/team/app", nil)
	_, err = s.Newest(t.Context(), kv("team/app").Parameters)
	wantReason(t, "the version of what is deleted", err, fault.SourceRefused)
	ticket, err := s.Prepare(t.Context(), order(kv("team/app"), time.Minute))
	check(t, err)
	_, err = ticket.Issue(t.Context())
	wantReason(t, "what is deleted", err, fault.SourceRefused)
}

func TestDynamicPathsGiveAllFields(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := dynamic(vaulttest.DatabaseMount+"/creds/app", nil)
	s := l.source(t, r)
	issued, anchor := issue(t, s, order(r, time.Minute))
	if got := issued.Value.Names(); !slices.Equal(got, []string{"password", "username"}) {
		t.Errorf("fields %q", got)
	}
	check(t, s.Revoke(t.Context(), anchor))
	post := dynamic("pki/issue/app", map[string]string{"common_name": `it's "a" \ name`, "ttl": "2m"})
	s = l.source(t, post)
	issued, _ = issue(t, s, order(post, time.Minute))
	if !slices.Contains(issued.Value.Names(), "private_key") {
		t.Errorf("fields %q", issued.Value.Names())
	}
}
