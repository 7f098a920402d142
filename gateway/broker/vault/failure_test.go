package vault_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/broker/vaulttest"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
)

func TestASealedVaultIsTypedAndLeasesOutliveIt(t *testing.T) {
	t.Parallel()
	l := ownLab(t, vaulttest.WithFileStorage())
	s := l.source(t, database("app"))
	issued, anchor := issue(t, s, order(database("app"), time.Minute))
	ticket, err := s.Prepare(t.Context(), order(database("app"), time.Minute))
	check(t, err)
	check(t, l.Seal())
	_, err = s.Prepare(t.Context(), order(database("app"), time.Minute))
	wantReason(t, "preparing", err, fault.SourceSealed)
	_, err = ticket.Issue(t.Context())
	wantReason(t, "issuing", err, fault.SourceSealed)
	wantReason(t, "revoking", s.Revoke(t.Context(), anchor), fault.SourceSealed)
	_, err = s.Inspect(t.Context(), anchor)
	wantReason(t, "inspecting", err, fault.SourceSealed)
	_, err = s.Renew(t.Context(), anchor, time.Minute, time.Now().Add(time.Minute))
	wantReason(t, "renewing", err, fault.SourceSealed)
	check(t, l.Unseal())
	l.endsWhenVaultIsBack(t, s, issued, anchor)
}

func TestAKilledVaultIsTypedAndLeasesOutliveIt(t *testing.T) {
	t.Parallel()
	l := ownLab(t, vaulttest.WithFileStorage())
	s := l.source(t, database("app"))
	issued, anchor := issue(t, s, order(database("app"), time.Minute))
	check(t, l.Kill())
	for range 8 { // until after the breaker opens
		_, err := s.Prepare(t.Context(), order(database("app"), time.Minute))
		wantReason(t, "preparing", err, fault.SourceUnavailable)
	}
	wantReason(t, "the failure", s.Failure(), fault.SourceUnavailable)
	wantReason(t, "revoking", s.Revoke(t.Context(), anchor), fault.SourceUnavailable)
	check(t, l.Restart())
	l.endsWhenVaultIsBack(t, s, issued, anchor)
}

func TestAPausedVaultFailsInBoundedTime(t *testing.T) {
	t.Parallel()
	l := ownLab(t)
	s := l.source(t, database("app"))
	issued, anchor := issue(t, s, order(database("app"), time.Minute))
	_, other := issue(t, s, order(database("app"), time.Minute))
	ticket, err := s.Prepare(t.Context(), order(database("app"), time.Minute))
	check(t, err)
	check(t, l.Pause())
	for name, call := range map[string]func() error{
		"prepare": func() error { _, err := s.Prepare(t.Context(), order(database("app"), time.Minute)); return err },
		"issue":   func() error { _, err := ticket.Issue(t.Context()); return err },
		"revoke":  func() error { return s.Revoke(t.Context(), other) }, // which Vault may do when it goes on
		"inspect": func() error { _, err := s.Inspect(t.Context(), anchor); return err },
		"renew": func() error {
			_, err := s.Renew(t.Context(), anchor, time.Minute, time.Now().Add(time.Minute))
			return err
		},
		"newest": func() error { _, err := s.Newest(t.Context(), kv("x").Parameters); return err },
	} {
		began := time.Now()
		wantReason(t, name, call(), fault.SourceUnavailable)
		if took := time.Since(began); took > l.config.Timeout+time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
	check(t, l.Resume())
	l.endsWhenVaultIsBack(t, s, issued, anchor)
	check(t, s.Revoke(t.Context(), other))
	// What was asked for when nobody answered leaves nothing either.
	eventually(t, "the end of what may have been issued", func() bool { return s.Revoke(t.Context(), ticket.Anchor()) == nil })
}

// endsWhenVaultIsBack sees that a lease lives on, and ends it.
func (l *lab) endsWhenVaultIsBack(t *testing.T, s lease.Source, issued lease.Issued, anchor lease.Anchor) {
	t.Helper()
	user := text(t, issued.Value, "username")
	eventually(t, "Vault's answer", func() bool {
		standing, err := s.Inspect(t.Context(), anchor)
		return err == nil && standing.Alive
	})
	check(t, l.pg.Login(user, text(t, issued.Value, "password")))
	check(t, s.Revoke(t.Context(), anchor))
	if len(l.pg.Roles(user)) != 0 {
		t.Error("the role is left")
	}
	check(t, s.Failure())
}

func TestADatabaseThatDoesNotDropTheRoleConfirmsNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := l.source(t, database("app"))
	issued, anchor := issue(t, s, order(database("app"), time.Minute))
	user := text(t, issued.Value, "username")
	if _, err := l.pg.Exec(`CREATE TABLE "owned_` + user + `" (x int); ALTER TABLE "owned_` + user + `" OWNER TO "` + user + `"`); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		wantReason(t, "revoking", s.Revoke(t.Context(), anchor), fault.SourceUnavailable)
		standing, err := s.Inspect(t.Context(), anchor)
		check(t, err)
		if !standing.Alive || len(l.pg.Roles(user)) != 1 {
			t.Errorf("what still works is said to be gone: %+v", standing)
		}
	}
	check(t, s.Failure()) // Vault answers
	_, err := s.Renew(t.Context(), anchor, time.Minute, time.Now().Add(time.Minute))
	wantReason(t, "renewing", err, fault.LeaseGone)
	if _, err := l.pg.Exec(`DROP TABLE "owned_` + user + `"`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the confirmation", func() bool { return s.Revoke(t.Context(), anchor) == nil })
	if len(l.pg.Roles(user)) != 0 {
		t.Error("the role is left")
	}
}

func TestADatabaseThatIsDownIsNotVaultBeingDown(t *testing.T) {
	t.Parallel()
	pg := vaulttest.StartPostgres(t)
	v := vaulttest.StartVault(t)
	check(t, enable(v, pg))
	l := labOn(t, v, pg)
	s := l.source(t, database("app"))
	for name, act := range map[string][2]func() error{"killed": {pg.Kill, pg.Restart}, "paused": {pg.Pause, pg.Resume}} {
		issued, anchor := issue(t, s, order(database("app"), time.Minute))
		user := text(t, issued.Value, "username")
		check(t, act[0]())
		wantReason(t, name+": revoking", s.Revoke(t.Context(), anchor), fault.SourceUnavailable)
		ticket, err := s.Prepare(t.Context(), order(database("app"), time.Minute))
		check(t, err)
		began := time.Now()
		_, err = ticket.Issue(t.Context())
		wantReason(t, name+": issuing", err, fault.SourceUnavailable)
		if took := time.Since(began); took > l.config.Timeout+2*time.Second {
			t.Errorf("%s: it took %v", name, took)
		}
		check(t, s.Failure())
		check(t, act[1]())
		eventually(t, name+": the end of what may have been issued", func() bool { return s.Revoke(t.Context(), ticket.Anchor()) == nil })
		eventually(t, name+": the confirmation", func() bool { return s.Revoke(t.Context(), anchor) == nil })
		if len(pg.Roles(user)) != 0 {
			t.Errorf("%s: the role is left", name)
		}
	}
	eventually(t, "the end of everything that was issued", func() bool { return len(pg.Roles("v-")) == 0 })
}

func TestANamespaceThatIsMissingIsRefused(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.config.Namespace = "nowhere"
	_, err := l.source(t, database("app")).Prepare(t.Context(), order(database("app"), time.Minute))
	wantReason(t, "a namespace on a Vault without them", err, fault.SourceRefused)
}

func TestRolesAndPoliciesThatAreMissingAreRefused(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := l.source(t) // no policy for the role
	ticket, err := s.Prepare(t.Context(), order(database("app"), time.Minute))
	check(t, err)
	_, err = ticket.Issue(t.Context())
	wantReason(t, "a role without its policy", err, fault.SourceRefused)
	if _, err := l.DoAs(l.RootToken, http.MethodPost, "auth/token/lookup-accessor", map[string]any{"accessor": ticket.Anchor().Handle}); err == nil {
		t.Error("the child token is left")
	}
	s = l.source(t, database("no-such"))
	_, err = tryIssue(t, s, database("no-such"))
	wantReason(t, "a role that Vault does not have", err, fault.SourceRefused)
	_, err = s.Newest(t.Context(), kv("no/such").Parameters)
	wantReason(t, "a secret that Vault does not have", err, fault.SourceRefused)
}

func TestShortenedLivesAreTold(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	check(t, vaulttest.EnableDatabase(l.Vault, l.pg, l.prefix, 20*time.Second, 40*time.Second))
	r := database(l.prefix)
	s := l.source(t, r)
	issued, anchor := issue(t, s, order(r, 5*time.Minute))
	between(t, "the engine's end", issued.Expires, time.Now().Add(15*time.Second), time.Now().Add(20*time.Second))
	end, err := s.Renew(t.Context(), anchor, 5*time.Minute, time.Now().Add(time.Hour))
	check(t, err)
	between(t, "the engine's maximum", end, time.Now().Add(30*time.Second), time.Now().Add(40*time.Second))

	// The child token's life is bounded by the token role.
	l.Must(http.MethodPost, "auth/token/roles/"+l.prefix, map[string]any{"token_explicit_max_ttl": "10s"})
	issued, anchor = issue(t, s, order(r, 5*time.Minute))
	between(t, "the token's end", issued.Expires, time.Now().Add(5*time.Second), time.Now().Add(10*time.Second))
	user := text(t, issued.Value, "username")
	end, err = s.Renew(t.Context(), anchor, 5*time.Minute, time.Now().Add(time.Hour))
	check(t, err)
	between(t, "the token's maximum", end, time.Now().Add(5*time.Second), time.Now().Add(10*time.Second))
	// Vault ends it by itself, though the engine would let it live on.
	eventually(t, "the end by itself", func() bool {
		standing, err := s.Inspect(t.Context(), anchor)
		return err == nil && !standing.Alive && len(l.pg.Roles(user)) == 0
	})
	if late := time.Since(issued.Expires); late > 5*time.Second {
		t.Errorf("it ended %v after its stated end", late)
	}
	check(t, s.Revoke(t.Context(), anchor))
	_, err = s.Renew(t.Context(), anchor, time.Minute, time.Now().Add(time.Hour))
	wantReason(t, "renewing what has ended", err, fault.LeaseGone)
}
