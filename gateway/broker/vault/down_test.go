package vault_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/broker/vault"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
)

func TestTheBreakerSparesAVaultThatIsDown(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.says("auth/token/create/sallyport", 503, `{"errors":["Vault is sealed"]}`)
	s := f.source(t)
	for range 20 {
		_, err := s.Prepare(t.Context(), order(database("app"), time.Minute))
		wantReason(t, "sealed", err, fault.SourceSealed)
	}
	if n := f.count("auth/token/create/sallyport"); n != 5 {
		t.Errorf("asked %d times", n)
	}
	wantReason(t, "the failure", s.Failure(), fault.SourceSealed)
	f.says("auth/token/create/sallyport", 200, child(nil))
	eventually(t, "the end of the pause", func() bool {
		_, err := tryIssue(t, s, database("app"))
		return err == nil && s.Failure() == nil
	})
}

func TestAHangingDatabaseDoesNotOpenTheBreaker(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.config.Timeout = time.Second
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	f.does("database/creds/app", func(http.ResponseWriter, *http.Request) { <-over })
	s := f.source(t)
	var tickets []lease.Ticket
	for range 8 {
		ticket, err := s.Prepare(t.Context(), order(database("app"), time.Minute))
		check(t, err)
		tickets = append(tickets, ticket)
	}
	var wait sync.WaitGroup
	for _, ticket := range tickets { // at once, while the tickets are good
		wait.Go(func() {
			_, err := ticket.Issue(t.Context())
			wantReason(t, "hanging", err, fault.SourceUnavailable)
		})
	}
	wait.Wait()
	if n := f.count("database/creds/app"); n != len(tickets) {
		t.Errorf("%d calls hung", n)
	}
	check(t, s.Failure())
	if n := f.count("auth/token/revoke-accessor"); n != 0 {
		t.Errorf("%d tokens were revoked while something may still be issued", n)
	}
}

// A Vault that gives up a call while the database makes an account forgets the account.
func TestACallThatIssuesIsFinishedThoughTheCallerIsGone(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		f := newFake(t)
		if secure {
			f.secure(t)
		}
		s := f.source(t)
		gone := map[string]chan bool{}
		for _, path := range []string{"database/creds/app", "auth/token/lookup-accessor"} {
			saw := make(chan bool, 1)
			gone[path] = saw
			f.does(path, func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-r.Context().Done():
					saw <- true
				case <-time.After(3 * time.Second):
					saw <- false
				}
				w.WriteHeader(http.StatusNoContent)
			})
		}
		ticket, err := s.Prepare(t.Context(), order(database("app"), time.Minute))
		check(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if _, err = ticket.Issue(ctx); err == nil {
			t.Error("nothing is issued")
		}
		if _, err = s.Inspect(ctx, lease.Anchor{Handle: "acc"}); err == nil {
			t.Error("nothing is seen")
		}
		ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if _, err = s.Inspect(ctx, lease.Anchor{Handle: "acc"}); err == nil {
			t.Error("nothing is seen")
		}
		if !<-gone["auth/token/lookup-accessor"] {
			t.Error("the server does not see at all who hangs up")
		}
		if <-gone["database/creds/app"] {
			t.Error("the server gives up what it issues")
		}
	}
}

func TestSigningInIsDoneOnceForManyAndHeldBackAfterARefusal(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s := f.source(t)
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			if _, err := tryIssue(t, s, database("app")); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if n := f.count("auth/approle/login"); n != 1 {
		t.Errorf("signed in %d times", n)
	}
	f = newFake(t)
	f.says("auth/approle/login", 400, `{"errors":["invalid role or secret ID"]}`)
	s = f.source(t)
	for range 20 {
		_, err := s.Prepare(t.Context(), order(database("app"), time.Minute))
		wantReason(t, "a wrong secret id", err, fault.SourceRefused)
	}
	if n := f.count("auth/approle/login"); n != 1 {
		t.Errorf("tried %d times", n)
	}
	wantReason(t, "the failure", s.Failure(), fault.SourceRefused)
	f.says("auth/approle/login", 200, `{"auth":{"client_token":"hvs.own","accessor":"own","lease_duration":3600}}`)
	eventually(t, "another try", func() bool { _, err := tryIssue(t, s, database("app")); return err == nil && s.Failure() == nil })
}

func TestTheTokenIsRenewedUntilRenewingShortensIt(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	var mu sync.Mutex
	now := time.Now()
	f.config.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	pass := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
	s := f.source(t)
	inspect := func() {
		_, err := s.Inspect(t.Context(), lease.Anchor{Handle: "acc"})
		check(t, err)
	}
	after := func(what string, renewals, logins int) {
		t.Helper()
		eventually(t, what, func() bool {
			inspect()
			return f.count("auth/token/renew-self") == renewals && f.count("auth/approle/login") == logins
		})
	}
	f.says("auth/token/renew-self", 200, `{"auth":{"lease_duration":3600,"renewable":true}}`)
	inspect()
	pass(39 * time.Minute)
	after("no renewal before two thirds", 0, 1)
	pass(2 * time.Minute)
	after("a renewal", 1, 1)
	f.says("auth/token/renew-self", 200, `{"auth":{"lease_duration":1000,"renewable":true}}`)
	pass(41 * time.Minute)
	after("a new token instead of a shortened one", 2, 2)
	f.says("auth/token/renew-self", 403, `{"errors":["permission denied"]}`)
	pass(41 * time.Minute)
	after("a new token when renewing fails", 3, 3)
	f.says("auth/approle/login", 503, `busy`)
	pass(41 * time.Minute)
	inspect() // the old one works until its end
	inspect()
	pass(20 * time.Minute)
	_, err := s.Inspect(t.Context(), lease.Anchor{Handle: "acc"})
	wantReason(t, "without a token", err, fault.SourceUnavailable)
}

func TestAnAuthorityThatIsTakenOutOfTheFileIsTrustedUntilTheNextSigningInAtMost(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.secure(t)
	var mu sync.Mutex
	now := time.Now()
	f.config.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	s := f.source(t)
	_, err := tryIssue(t, s, database("app"))
	check(t, err)
	check(t, os.WriteFile(f.config.CAFile, mustAuthority(t).PEM, 0o600))
	_, err = tryIssue(t, s, database("app"))
	check(t, err)
	mu.Lock()
	now = now.Add(61 * time.Minute)
	mu.Unlock()
	_, err = tryIssue(t, s, database("app"))
	wantReason(t, "after signing in", err, fault.SourceUntrusted)
}

func TestTwoWhoIssueFromOneTicketAskOnce(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.does("database/creds/app", func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(50 * time.Millisecond) // so that both are there
		_, _ = io.WriteString(w, credential(nil))
	})
	ticket, err := f.source(t).Prepare(t.Context(), order(database("app"), time.Minute))
	check(t, err)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() { _, _ = ticket.Issue(t.Context()) })
	}
	wait.Wait()
	if n := f.count("database/creds/app"); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	t.Parallel()
	role := &vault.AppRole{RoleID: "r", SecretIDFile: "f"}
	jwt := &vault.JWT{Role: "r", TokenFile: "f"}
	for name, c := range map[string]vault.Config{
		"no address":        {AppRole: role},
		"http to elsewhere": {Address: "http://vault.example.org:8200", AppRole: role},
		"a socket":          {Address: "unix:///run/vault.sock", AppRole: role},
		"a user":            {Address: "https://user:password@vault.example.org", AppRole: role},
		"a path":            {Address: "https://vault.example.org/x", AppRole: role},
		"no way":            {Address: "https://vault.example.org"},
		"two ways":          {Address: "https://vault.example.org", AppRole: role, JWT: jwt},
		"no role id":        {Address: "https://vault.example.org", AppRole: &vault.AppRole{SecretIDFile: "f"}},
		"a mount that is none": {Address: "https://vault.example.org", JWT: &vault.JWT{
			Mount: "../sys", Role: "r", TokenFile: "f",
		}},
		"a namespace of lines":  {Address: "https://vault.example.org", AppRole: role, Namespace: "a\r\nb"},
		"a token role of paths": {Address: "https://vault.example.org", AppRole: role, TokenRole: "a/b"},
		"authorities that are none": {
			Address: "https://vault.example.org", AppRole: role, CAFile: (&lab{}).file(t, "ca.pem", "no certificate"),
		},
		"no such authorities": {Address: "https://vault.example.org", AppRole: role, CAFile: "no such file"},
	} {
		if s, err := vault.New(c); err == nil {
			s.Close()
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestAClosedSourceAsksNobody(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s := f.source(t)
	_, err := tryIssue(t, s, database("app"))
	check(t, err)
	s.Close()
	if f.count("auth/token/revoke-self") != 1 {
		t.Error("the gateway's own token is left")
	}
	before := len(f.requests())
	if _, err := s.Prepare(t.Context(), order(database("app"), time.Minute)); err == nil || errors.Is(err, fault.New(fault.Internal, "")) {
		t.Error(err)
	}
	if len(f.requests()) != before {
		t.Error("a closed source asks")
	}
}
