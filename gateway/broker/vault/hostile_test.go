package vault_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
)

func TestAnswersOfAnotherShapeAreMalformed(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"empty": "", "no JSON": canary, "HTML": "<html>" + canary, "an array": `["` + canary + `"]`, "half": `{"data":{"password":"` + canary,
		"no data": `{"lease_id":"database/creds/app/x","lease_duration":60}`, "null data": credential(map[string]any{"data": nil}),
		"data is a text": credential(map[string]any{"data": canary}), "no password": credential(map[string]any{"data": map[string]any{"username": canary}}),
		"an empty password":     credential(map[string]any{"data": map[string]any{"username": "u", "password": ""}}),
		"a number for password": credential(map[string]any{"data": map[string]any{"username": "u", "password": 5}}),
		"no lease":              credential(map[string]any{"lease_id": ""}), "a number for lease": credential(map[string]any{"lease_id": 5}),
		"a lease that climbs":  credential(map[string]any{"lease_id": "../../sys/seal"}),
		"a lease with a query": credential(map[string]any{"lease_id": "a/b?x=y"}), "a lease with a space": credential(map[string]any{"lease_id": "a b"}),
		"a negative duration": credential(map[string]any{"lease_duration": -1}), "a duration in words": credential(map[string]any{"lease_duration": "1h"}),
		"a duration of ages": credential(map[string]any{"lease_duration": int64(1) << 60}), "renewable in words": credential(map[string]any{"renewable": "yes"}),
		"the same name twice": `{"data":{"password":"a","password":"` + canary + `","username":"u"},"lease_id":"database/creds/app/x"}`,
		"bad UTF-8":           `{"data":{"password":"` + "\xff" + canary + `","username":"u"},"lease_id":"database/creds/app/x"}`,
		"a tail":              credential(nil) + canary,
	} {
		f := newFake(t)
		f.says("database/creds/app", 200, answer)
		s := f.source(t)
		issued, err := tryIssue(t, s, database("app"))
		wantQuiet(t, name, err, fault.SourceMalformed)
		if issued.Value != nil {
			t.Errorf("%s gives a value", name)
		}
		if f.count("auth/token/revoke-accessor") == 0 {
			t.Errorf("%s: what was issued is not ended", name)
		}
		check(t, s.Failure())
	}
}

func TestAnswersThatAreTooLongAreMalformed(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.says("auth/token/create/sallyport", 200, child(map[string]any{"policies": []string{"sallyport.acme.kv"}, "num_uses": 1}))
	f.says("secret/data/long", 200, credential(map[string]any{"data": map[string]any{
		"data": map[string]any{"a": strings.Repeat(canary, 1<<17)}, "metadata": map[string]any{"version": 1},
	}}))
	_, err := tryIssue(t, f.source(t), kv("long"))
	wantQuiet(t, "a long answer", err, fault.SourceMalformed)
	f.says("secret/data/long", 200, credential(map[string]any{"data": map[string]any{
		"data": map[string]any{"a": strings.Repeat("x", 1<<20-1000)}, "metadata": map[string]any{"version": 1},
	}}))
	issued, err := tryIssue(t, f.source(t), kv("long"))
	check(t, err)
	if n := len(text(t, issued.Value, "a")); n != 1<<20-1000 {
		t.Errorf("%d bytes", n)
	}
}

func TestCertificatesWithoutALeaseSayWhatToDo(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.says("auth/token/create/sallyport", 200, child(map[string]any{"policies": []string{"sallyport.acme.tls"}}))
	f.says("pki/issue/app", 200, credential(map[string]any{"lease_id": "", "data": map[string]any{
		"certificate": "c", "private_key": "k", "issuing_ca": "i", "serial_number": "s",
	}}))
	_, err := tryIssue(t, f.source(t), certificate())
	wantReason(t, "no lease", err, fault.SourceMalformed)
	if !strings.Contains(fault.From(err).Message(), "generate_lease=true") {
		t.Error(err)
	}
}

func TestChildTokensThatAreNotWhatWasAskedForAreRefusedAndEnded(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer string
		want   fault.Reason
	}{
		"not an orphan":      {child(map[string]any{"orphan": false}), fault.SourceRefused},
		"another policy":     {child(map[string]any{"policies": []string{"default", "sallyport.acme.app"}}), fault.SourceRefused},
		"no policy":          {child(map[string]any{"policies": []string{}}), fault.SourceRefused},
		"a batch token":      {child(map[string]any{"token_type": "batch"}), fault.SourceRefused},
		"uses without end":   {child(map[string]any{"num_uses": 0}), fault.SourceRefused},
		"one use":            {child(map[string]any{"num_uses": 1}), fault.SourceRefused},
		"a longer life":      {child(map[string]any{"lease_duration": 61}), fault.SourceRefused},
		"a life without end": {child(map[string]any{"lease_duration": 0}), fault.SourceRefused},
		"no token":           {child(map[string]any{"client_token": ""}), fault.SourceMalformed},
		"a token of lines":   {child(map[string]any{"client_token": "a\r\nX-Evil: 1"}), fault.SourceMalformed},
		"no accessor":        {child(map[string]any{"accessor": ""}), fault.SourceMalformed},
		"a strange accessor": {child(map[string]any{"accessor": "a/../b"}), fault.SourceMalformed},
		"no auth":            {`{"data":{}}`, fault.SourceMalformed},
		"nothing":            {"", fault.SourceMalformed},
	} {
		f := newFake(t)
		f.says("auth/token/create/sallyport", 200, test.answer)
		_, err := f.source(t).Prepare(t.Context(), order(database("app"), time.Minute))
		wantQuiet(t, name, err, test.want)
		if test.want == fault.SourceRefused && f.count("auth/token/revoke-accessor") != 1 {
			t.Errorf("%s: the token is left", name)
		}
	}
}

func TestStatusesBecomeReasons(t *testing.T) {
	t.Parallel()
	said := func(s string) string { return fmt.Sprintf(`{"errors":[%q]}`, s) }
	for name, test := range map[string]struct {
		status int
		text   string
		want   fault.Reason
	}{
		"bad request":          {400, said("unknown role: " + canary), fault.SourceRefused},
		"forbidden":            {403, said("1 error occurred: permission denied"), fault.SourceRefused},
		"not found":            {404, `{"errors":[]}`, fault.SourceRefused},
		"no such method":       {405, said("unsupported operation"), fault.SourceRefused},
		"state missing":        {412, said("required index state not present"), fault.SourceUnavailable},
		"rate limit":           {429, said("request path \"x\": rate limit quota exceeded"), fault.SourceThrottled},
		"overloaded":           {503, said("server is overloaded, please try again later"), fault.SourceThrottled},
		"recovery secondary":   {472, "", fault.SourceStandby},
		"performance standby":  {473, "", fault.SourceStandby},
		"a redirect":           {307, "", fault.SourceStandby},
		"no active node":       {500, said("local node not active but active cluster node not found"), fault.SourceStandby},
		"the database is down": {500, said("failed to connect " + canary), fault.SourceUnavailable},
		"not initialised":      {501, "", fault.SourceSealed},
		"sealed":               {503, said("Vault is sealed"), fault.SourceSealed},
		"a proxy without":      {502, "<html>" + canary, fault.SourceUnavailable},
		"a proxy of patience":  {504, canary, fault.SourceUnavailable},
		"unavailable":          {503, canary, fault.SourceUnavailable},
	} {
		for _, path := range []string{"auth/approle/login", "auth/token/create/sallyport", "database/creds/app"} {
			f := newFake(t)
			elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Errorf("%s: the redirect is followed", name) }))
			f.does(path, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", elsewhere.URL+"/v1/"+path)
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.text)
			})
			_, err := tryIssue(t, f.source(t), database("app"))
			wantReason(t, name+" at "+path, err, test.want)
			if err != nil && path == "database/creds/app" && strings.Contains(err.Error(), canary) {
				t.Errorf("%s: Vault's words about a secret are in %v", name, err)
			}
			if m := fault.From(err).Message(); strings.Contains(m, canary) {
				t.Errorf("%s: %s", name, m)
			}
			if n := f.count("database/creds/app"); n > 1 {
				t.Errorf("%s: issuing was tried %d times", name, n)
			}
			elsewhere.Close()
		}
	}
}

func TestAForeignAnswerConfirmsNothing(t *testing.T) {
	t.Parallel()
	anchor := lease.Anchor{Handle: "acc", Ref: "database/creds/app/x"}
	token := func(uses, ttl int) string {
		return fmt.Sprintf(`{"data":{"accessor":"acc","num_uses":%d,"ttl":%d,"creation_ttl":60,"renewable":true,"meta":{"sallyport_uses":"2"}}}`, uses, ttl)
	}
	for name, test := range map[string]struct {
		path   string
		status int
		text   string
		want   fault.Reason
	}{
		"the lease is still there":         {"sys/leases/lookup", 200, `{"data":{"id":"database/creds/app/x","ttl":-5}}`, fault.SourceUnavailable},
		"the token is still there":         {"auth/token/lookup-accessor", 200, token(1, 50), fault.SourceUnavailable},
		"another lease":                    {"sys/leases/lookup", 200, `{"data":{"id":"other","ttl":5}}`, fault.SourceMalformed},
		"another token":                    {"auth/token/lookup-accessor", 200, `{"data":{"accessor":"other","ttl":5,"meta":{}}}`, fault.SourceMalformed},
		"nothing about the lease":          {"sys/leases/lookup", 200, `{}`, fault.SourceMalformed},
		"nothing about the token":          {"auth/token/lookup-accessor", 200, ``, fault.SourceMalformed},
		"forbidden to look for the lease":  {"sys/leases/lookup", 403, `{"errors":["permission denied"]}`, fault.SourceRefused},
		"a bare 404 for the lease":         {"sys/leases/lookup", 404, `{"errors":[]}`, fault.SourceRefused},
		"a proxy's 404 for the token":      {"auth/token/lookup-accessor", 404, `not found`, fault.SourceRefused},
		"a failure that says gone":         {"sys/leases/lookup", 500, `{"errors":["invalid lease"]}`, fault.SourceUnavailable},
		"forbidden to look for the token":  {"auth/token/lookup-accessor", 403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`, fault.SourceRefused},
		"forbidden to revoke the token":    {"auth/token/revoke-accessor", 403, `{"errors":["permission denied"]}`, fault.SourceRefused},
		"a proxy fails, revoking":          {"sys/leases/revoke/database/creds/app/x", 502, `bad gateway`, fault.SourceUnavailable},
		"sealed when looking for the rest": {"auth/token/lookup-accessor", 503, `{"errors":["Vault is sealed"]}`, fault.SourceSealed},
	} {
		f := newFake(t)
		f.says(test.path, test.status, test.text)
		err := f.source(t).Revoke(t.Context(), anchor)
		wantReason(t, name, err, test.want)
	}
	f := newFake(t)
	check(t, f.source(t).Revoke(t.Context(), anchor))
	if f.count("sys/leases/revoke/database/creds/app/x") != 1 || !strings.Contains(strings.Join(f.sent(), ""), `"sync":true`) {
		t.Error("Vault is not asked to revoke before it answers")
	}
	// What the policy does not let us revoke any more ends with its token.
	f = newFake(t)
	f.says("sys/leases/revoke/database/creds/app/x", 403, `{"errors":["permission denied"]}`)
	check(t, f.source(t).Revoke(t.Context(), anchor))
}

// Vault forbids to look at a token that ends at that moment, and does not know it when it
// is asked again.
func TestATokenThatEndsWhileItIsLookedUp(t *testing.T) {
	t.Parallel()
	for _, anchor := range []lease.Anchor{{Handle: "acc"}, {Handle: "acc", Ref: "database/creds/app/x"}} {
		f := newFake(t)
		looked := 0
		f.does("auth/token/lookup-accessor", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			looked++
			_, _ = io.WriteString(w, []string{
				`{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`, `{"errors":["1 error occurred:\n\t* invalid accessor\n\n"]}`,
			}[min(looked-1, 1)])
		})
		check(t, f.source(t).Revoke(t.Context(), anchor))
		if looked != 2 {
			t.Errorf("looked %d times", looked)
		}
	}
}

func TestWhatMayStillBeIssuedKeepsItsTokenUntilNoCallCanBeUnderWay(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		uses, ttl int
		confirmed bool
	}{
		"used and young":                 {1, 59, false},
		"in its last use":                {-1, 59, false},
		"used, and Vault may work on it": {1, 52, false},
		"used and old":                   {1, 51, true},
		"the call may be on its way":     {2, 53, false},
		"not used, and no call can come": {2, 52, true},
	} {
		f := newFake(t)
		revoked := false
		f.does("auth/token/revoke-accessor", func(w http.ResponseWriter, _ *http.Request) { revoked = true; w.WriteHeader(http.StatusNoContent) })
		f.does("auth/token/lookup-accessor", func(w http.ResponseWriter, _ *http.Request) {
			if revoked {
				w.WriteHeader(http.StatusForbidden)
				_, _ = io.WriteString(w, `{"errors":["invalid accessor"]}`)
				return
			}
			fmt.Fprintf(w, `{"data":{"accessor":"acc","num_uses":%d,"ttl":%d,"creation_ttl":60,"renewable":true,"meta":{"sallyport_uses":"2"}}}`, test.uses, test.ttl)
		})
		err := f.source(t).Revoke(t.Context(), lease.Anchor{Handle: "acc"})
		if (err == nil) != test.confirmed || revoked != test.confirmed {
			t.Errorf("%s: revoked %v: %v", name, revoked, err)
		}
	}
}

// A token is kept for a call that may be on its way, so none may set out late.
func TestAnOldTicketIssuesNothing(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.config.Timeout = time.Second
	ticket, err := f.source(t).Prepare(t.Context(), order(database("app"), time.Minute))
	check(t, err)
	time.Sleep(f.config.Timeout)
	_, err = ticket.Issue(t.Context())
	wantReason(t, "an old ticket", err, fault.SourceUnavailable)
	if f.count("database/creds/app") != 0 || f.count("auth/token/revoke-accessor") != 1 {
		t.Errorf("issued %d times, revoked %d times", f.count("database/creds/app"), f.count("auth/token/revoke-accessor"))
	}
}

// Vault was killed while it revoked a token: it calls it unknown when it is to revoke it,
// still shows it, and ends it later, with what hangs on it.
func TestATokenWhoseRevocationVaultDidNotFinish(t *testing.T) {
	t.Parallel()
	const ref = "database/creds/app/x"
	for name, test := range map[string]struct {
		ref       string
		uses      int
		leaseGone bool
		confirmed bool
	}{
		"its lease is gone":                     {ref, -1, true, true},
		"its lease lives":                       {ref, -1, false, false},
		"its lease is not known":                {"", -1, false, false},
		"its lease is gone, and it can be used": {ref, 1, true, false},
	} {
		f := newFake(t)
		f.says("auth/token/revoke-accessor", http.StatusBadRequest, `{"errors":["token not found"]}`)
		f.says("auth/token/lookup-accessor", http.StatusOK, fmt.Sprintf(
			`{"data":{"accessor":"acc","num_uses":%d,"ttl":9,"creation_ttl":60,"renewable":true,"meta":{"sallyport_uses":"2"}}}`, test.uses))
		if !test.leaseGone {
			f.says("sys/leases/lookup", http.StatusOK, `{"data":{"id":"`+ref+`","ttl":9}}`)
		}
		err := f.source(t).Revoke(t.Context(), lease.Anchor{Handle: "acc", Ref: test.ref})
		if (err == nil) != test.confirmed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRenewalsTellTheTrueEnd(t *testing.T) {
	t.Parallel()
	anchor := lease.Anchor{Handle: "acc", Ref: "database/creds/app/x"}
	const renew = "sys/leases/renew/database/creds/app/x"
	for name, test := range map[string]struct {
		token, lease int
		last         time.Duration
		want         time.Duration
	}{
		"as asked":                {60, 60, time.Hour, time.Minute},
		"the token is shortened":  {10, 60, time.Hour, 10 * time.Second},
		"the lease is shortened":  {60, 20, time.Hour, 20 * time.Second},
		"the maximum is nearer":   {60, 60, 30 * time.Second, 30 * time.Second},
		"the lease ends at once":  {60, 0, time.Hour, 0},
		"the lease is lengthened": {60, 7200, time.Hour, time.Minute},
	} {
		f := newFake(t)
		f.says("auth/token/renew-accessor", 200, fmt.Sprintf(`{"auth":{"lease_duration":%d,"renewable":true}}`, test.token))
		f.says(renew, 200, fmt.Sprintf(`{"lease_id":"database/creds/app/x","lease_duration":%d,"renewable":true}`, test.lease))
		began := time.Now()
		end, err := f.source(t).Renew(t.Context(), anchor, time.Minute, began.Add(test.last))
		check(t, err)
		between(t, name, end, began.Add(test.want), time.Now().Add(test.want))
	}
	refuse := func(s string) string { return fmt.Sprintf(`{"errors":[%q]}`, s) }
	for name, test := range map[string]struct {
		path   string
		status int
		text   string
		want   fault.Reason
	}{
		"the token is gone":          {"auth/token/renew-accessor", 400, refuse("invalid accessor"), fault.LeaseGone},
		"the token has just gone":    {"auth/token/renew-accessor", 403, refuse("bad token"), fault.LeaseGone},
		"the token has expired":      {"auth/token/renew-accessor", 400, refuse("lease expired"), fault.LeaseGone},
		"the token cannot":           {"auth/token/renew-accessor", 400, refuse("lease is not renewable"), fault.LeaseNotRenewable},
		"the lease is gone":          {renew, 400, refuse("lease not found"), fault.LeaseGone},
		"the lease has expired":      {renew, 400, refuse("lease expired"), fault.LeaseGone},
		"the lease is irrevocable":   {renew, 400, refuse("lease is expired and has failed previous revocation attempts"), fault.LeaseGone},
		"the lease cannot":           {renew, 400, refuse("lease is not renewable"), fault.LeaseNotRenewable},
		"the database does not obey": {renew, 400, refuse("failed to renew entry: " + canary), fault.SourceUnavailable},
		"another lease":              {renew, 200, `{"lease_id":"other","lease_duration":60}`, fault.SourceMalformed},
		"nothing":                    {renew, 204, ``, fault.SourceMalformed},
	} {
		f := newFake(t)
		f.says("auth/token/renew-accessor", 200, `{"auth":{"lease_duration":60,"renewable":true}}`)
		f.says(renew, 200, `{"lease_id":"database/creds/app/x","lease_duration":60,"renewable":true}`)
		f.says(test.path, test.status, test.text)
		_, err := f.source(t).Renew(t.Context(), anchor, time.Minute, time.Now().Add(time.Hour))
		wantReason(t, name, err, test.want)
	}
}
