package vault_test

import (
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/broker/vault"
	"github.com/sallyport/sallyport/gateway/broker/vaulttest"
	"github.com/sallyport/sallyport/gateway/fault"
)

// works issues a database credential, sees its role and ends it.
func (l *lab) works(t *testing.T, s *vault.Source) {
	t.Helper()
	issued, anchor := issue(t, s, order(database("app"), time.Minute))
	user := text(t, issued.Value, "username")
	if len(l.pg.Roles(user)) != 1 {
		t.Error("no role")
	}
	check(t, s.Revoke(t.Context(), anchor))
	if len(l.pg.Roles(user)) != 0 {
		t.Error("the role is left")
	}
}

func TestSigningInWithACertificate(t *testing.T) {
	t.Parallel()
	l := ownLab(t, vaulttest.WithTLS())
	v := l.Vault
	check(t, vaulttest.EnableCert(v, l.prefix+"-gateway"))
	certificate, key, err := v.ClientCA.IssueClient("gateway")
	check(t, err)
	l.config.AppRole = nil
	l.config.Certificate = &vault.Certificate{
		Role: vaulttest.LoginRole, CertFile: l.file(t, "cert.pem", string(certificate)), KeyFile: l.file(t, "key.pem", string(key)),
	}
	// Short enough that it is renewed, which takes the certificate again.
	l.Must(http.MethodPost, "auth/cert/certs/"+vaulttest.LoginRole, map[string]any{
		"certificate": string(v.ClientCA.PEM), "token_policies": []string{l.prefix + "-gateway"},
		"token_no_default_policy": true, "token_ttl": "2s", "token_max_ttl": "5s",
	})
	s := l.source(t, database("app"))
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); time.Sleep(250 * time.Millisecond) {
		l.works(t, s)
	}
	other, otherKey, err := mustAuthority(t).IssueClient("gateway")
	check(t, err)
	l.config.Certificate.CertFile, l.config.Certificate.KeyFile = l.file(t, "cert.pem", string(other)), l.file(t, "key.pem", string(otherKey))
	_, err = l.source(t, database("app")).Prepare(t.Context(), order(database("app"), time.Minute))
	if r := fault.From(err).Reason; r != fault.SourceRefused && r != fault.SourceUnavailable {
		t.Errorf("a foreign certificate: %v", err)
	}

	l.config.CAFile = l.file(t, "ca.pem", string(mustAuthority(t).PEM))
	s = l.source(t)
	_, err = s.Prepare(t.Context(), order(database("app"), time.Minute))
	wantReason(t, "another authority", err, fault.SourceUntrusted)
	// The file is read again once it has been replaced.
	trusted, err := os.ReadFile(v.CACert)
	check(t, err)
	check(t, os.WriteFile(l.config.CAFile, trusted, 0o600))
	_, err = s.Prepare(t.Context(), order(database("app"), time.Minute))
	if fault.From(err).Reason == fault.SourceUntrusted {
		t.Error("the new authority is not read")
	}
}

func mustAuthority(t *testing.T) *vaulttest.Authority {
	t.Helper()
	a, err := vaulttest.NewAuthority("another")
	check(t, err)
	return a
}

func TestSigningInWithAJWT(t *testing.T) {
	t.Parallel()
	l := ownLab(t)
	v := l.Vault
	signer, err := vaulttest.EnableJWT(v, l.prefix+"-gateway")
	check(t, err)
	token := func(audience string) string {
		s, err := signer.Sign(map[string]any{"sub": "gateway", "aud": audience})
		check(t, err)
		return s
	}
	l.config.AppRole = nil
	l.config.JWT = &vault.JWT{Role: vaulttest.LoginRole, TokenFile: l.file(t, "token", token("somebody"))}
	s := l.source(t, database("app"))
	_, err = s.Prepare(t.Context(), order(database("app"), time.Minute))
	wantReason(t, "a token for somebody else", err, fault.SourceRefused)
	wantReason(t, "the failure", s.Failure(), fault.SourceRefused)
	check(t, os.WriteFile(l.config.JWT.TokenFile, []byte(token(vaulttest.JWTAudience)), 0o600))
	eventually(t, "another try with the new file", func() bool {
		_, err := tryIssue(t, s, database("app"))
		return err == nil
	})
	l.works(t, s)
}

func TestSigningInWithAKubernetesServiceAccount(t *testing.T) {
	t.Parallel()
	l := ownLab(t)
	v := l.Vault
	cluster, err := vaulttest.EnableKubernetes(v, l.prefix+"-gateway")
	check(t, err)
	token, err := cluster.Token("prod", vaulttest.LoginRole)
	check(t, err)
	l.config.AppRole = nil
	l.config.Kubernetes = &vault.Kubernetes{Role: vaulttest.LoginRole, TokenFile: l.file(t, "token", token)}
	l.works(t, l.source(t, database("app")))
	cluster.Delete(token)
	_, err = l.source(t, database("app")).Prepare(t.Context(), order(database("app"), time.Minute))
	wantReason(t, "a token of a pod that is gone", err, fault.SourceRefused)
}

func TestAWrappedSecretIDOpensOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	wrap := func() string {
		answer, err := l.Send(t.Context(), vaulttest.Request{
			Method: http.MethodPost, Path: "auth/approle/role/" + l.prefix + "/secret-id", Token: l.RootToken, Body: map[string]any{}, WrapTTL: "60s",
		})
		check(t, err)
		return vaulttest.Lookup(answer, "wrap_info", "token")
	}
	l.appRole(t, map[string]any{"token_ttl": "2s", "token_max_ttl": "4s"})
	l.config.AppRole.Wrapped = true
	file := l.config.AppRole.SecretIDFile
	check(t, os.WriteFile(file, []byte(wrap()+"\n"), 0o600))
	s := l.source(t, database("app"))
	// Over the end of several tokens: the file is opened once, and a new one is too.
	for n := range 4 {
		l.works(t, s)
		if n == 2 {
			check(t, os.WriteFile(file, []byte(wrap()), 0o600))
		}
		time.Sleep(2500 * time.Millisecond)
	}
	_, err := l.source(t, database("app")).Prepare(t.Context(), order(database("app"), time.Minute))
	wantReason(t, "a token that was used", err, fault.SourceRefused)
	if !l.log.has("somebody else") {
		t.Errorf("the log does not say so: %s", l.log)
	}
	// Somebody wraps something else, and puts it there.
	answer, err := l.Send(t.Context(), vaulttest.Request{
		Method: http.MethodPost, Path: "sys/wrapping/wrap", Token: l.RootToken, Body: map[string]any{"secret_id": "another"}, WrapTTL: "60s",
	})
	check(t, err)
	check(t, os.WriteFile(file, []byte(vaulttest.Lookup(answer, "wrap_info", "token")), 0o600))
	_, err = l.source(t, database("app")).Prepare(t.Context(), order(database("app"), time.Minute))
	wantReason(t, "a token that wraps something else", err, fault.SourceRefused)
	if !l.log.has("wraps no secret id") {
		t.Errorf("the log does not say so: %s", l.log)
	}
}

func TestTheEndOfTheGatewaysTokenEndsNoLease(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.appRole(t, map[string]any{"token_ttl": "2s", "token_max_ttl": "5s"})
	l.config.Timeout = time.Minute // the ticket is good for as long
	s := l.source(t, database("app"))
	issued, anchor := issue(t, s, order(database("app"), time.Minute))
	user := text(t, issued.Value, "username")
	ticket, err := s.Prepare(t.Context(), order(database("app"), time.Minute))
	check(t, err)
	// Several tokens come and go; every call works all the time.
	for end := time.Now().Add(12 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		standing, err := s.Inspect(t.Context(), anchor)
		check(t, err)
		if !standing.Alive {
			t.Fatal("the lease is gone")
		}
	}
	_, err = s.Renew(t.Context(), anchor, time.Minute, time.Now().Add(10*time.Minute))
	check(t, err)
	late, err := ticket.Issue(t.Context())
	check(t, err)
	late.Value.Wipe()
	if len(l.pg.Roles(user)) != 1 {
		t.Error("the role is gone")
	}
	check(t, s.Revoke(t.Context(), anchor))
}

func TestATokenThatIsRevokedInBetweenIsReplacedWithoutAFailure(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := l.source(t, database("app"))
	issued, anchor := issue(t, s, order(database("app"), time.Minute))
	user := text(t, issued.Value, "username")
	// All tokens of the role that the gateway signs in with.
	for range 3 {
		l.revokeOwn(t)
		standing, err := s.Inspect(t.Context(), anchor)
		check(t, err)
		if !standing.Alive || len(l.pg.Roles(user)) != 1 {
			t.Fatal("the lease is gone")
		}
		l.revokeOwn(t)
		l.works(t, s)
	}
	check(t, s.Revoke(t.Context(), anchor))
}

// revokeOwn revokes the tokens that the gateway got by signing in.
func (l *lab) revokeOwn(t *testing.T) {
	t.Helper()
	list := l.Must("LIST", "auth/token/accessors", nil)
	keys, _ := list["data"].(map[string]any)["keys"].([]any)
	for _, k := range keys {
		found, err := l.Do(http.MethodPost, "auth/token/lookup-accessor", map[string]any{"accessor": k})
		if err != nil {
			continue // of another test, and gone
		}
		data, _ := found["data"].(map[string]any)
		policies, _ := data["policies"].([]any)
		if len(policies) == 1 && policies[0] == l.prefix+"-gateway" {
			l.Must(http.MethodPost, "auth/token/revoke-accessor", map[string]any{"accessor": k})
		}
	}
}
