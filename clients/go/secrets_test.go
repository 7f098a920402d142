package sallyport_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/crypto/secret"
	"github.com/sallyport/sallyport/gateway/fault"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

// read gives a field as text.
func read(t *testing.T, s *sallyport.Secret, field string) (text string) {
	t.Helper()
	if err := s.Use(field, func(b []byte) error { text = string(b); return nil }); err != nil {
		t.Errorf("%s: %v", field, err)
	}
	return text
}

// bare lists what crossed the line unsealed.
func bare(seen *[]bool) func(string, *secretsv1.Lease, *secretsv1.SealedSecret, *secretsv1.SecretFields) {
	return func(_ string, _ *secretsv1.Lease, _ *secretsv1.SealedSecret, plain *secretsv1.SecretFields) {
		*seen = append(*seen, plain != nil)
	}
}

func TestASecretIsSealedUnlessAskedForPlain(t *testing.T) {
	v := newVault(10*time.Minute, 0)
	var seen []bool
	v.spoil = bare(&seen)
	c, _ := v.connect(t)
	role := c.SecretRole(dbRole)
	for i, options := range [][]sallyport.LeaseOption{nil, {sallyport.Plain()}, {sallyport.Lifetime(time.Minute)}} {
		s, err := role.Lease(t.Context(), options...)
		if err != nil {
			t.Fatal(err)
		}
		l := s.Lease()
		if got := read(t, s, "password"); got != value(l.Name) || seen[i] != (i == 1) {
			t.Errorf("%d: %q, bare on the line: %v", i, got, seen[i])
		}
		if fmt.Sprint(s.Names()) != "[password username]" || l.Receipt != "receipt" || l.State != sallyport.LeaseActive {
			t.Errorf("%v %+v", s.Names(), l)
		}
		if want := []time.Duration{10 * time.Minute, 10 * time.Minute, time.Minute}[i]; l.Expires.Sub(l.Created) != want {
			t.Errorf("%d: lives %v", i, l.Expires.Sub(l.Created))
		}
	}
	if _, err := role.Lease(t.Context(), sallyport.KnownVersion(7)); !errors.Is(err, sallyport.ErrUnchanged) {
		t.Errorf("a known version: %v", err)
	}
}

func TestFieldsAreGoneAfterWiping(t *testing.T) {
	c, _ := newVault(time.Minute, 0).connect(t)
	s, err := c.SecretRole(dbRole).Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Use("pasword", func([]byte) error { return nil }); !errors.Is(err, sallyport.ErrNoField) {
		t.Errorf("a field that is not there: %v", err)
	}
	if _, ok := s.Field("pasword"); ok {
		t.Error("a field that is not there is given")
	}
	password, ok := s.Field("password")
	s.Wipe()
	s.Wipe()
	if !ok || !password.Wiped() {
		t.Error("a field survives")
	}
	if err := s.Use("password", func([]byte) error { return nil }); !errors.Is(err, secret.ErrWiped) {
		t.Errorf("after wiping: %v", err)
	}
}

// A secret does not print, whatever the verb, and does not marshal.
func TestASecretDoesNotPrint(t *testing.T) {
	c, _ := newVault(time.Minute, 0).connect(t)
	s, err := c.SecretRole(dbRole).Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{s, []*sallyport.Secret{s}, struct{ S *sallyport.Secret }{s}, struct{ s *sallyport.Secret }{s}} {
		if text, err := json.Marshal(v); err == nil && strings.Contains(string(text), "secret-of") {
			t.Errorf("%T marshals to %s", v, text)
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%X"} {
			text := fmt.Sprintf(verb, v)
			for _, leak := range []string{"secret-of", "7365637265742d6f66", "7365637265742D6F66", "115 101 99", "0x73, 0x65"} {
				if strings.Contains(text, leak) {
					t.Errorf("%s of %T prints %s", verb, v, text)
				}
			}
		}
	}
	if text := fmt.Sprint(s); !strings.Contains(text, "password") || !strings.Contains(text, dbRole) {
		t.Errorf("%s says too little", text)
	}
	var none *sallyport.Secret
	if fmt.Sprint(none) != "<nil>" {
		t.Errorf("no secret prints %s", fmt.Sprint(none))
	}
}

// What is answered must be what was asked for. What is not is not used, and is revoked if
// it is a lease of the role.
func TestAnswersToSomethingElse(t *testing.T) {
	const other = "tenants/demo/secretRoles/other/leases/00000000000000000000000000000001"
	for name, test := range map[string]struct {
		plain   bool
		spoil   func(l *secretsv1.Lease, s *secretsv1.SealedSecret, p *secretsv1.SecretFields)
		want    sallyport.Reason
		revokes int
	}{
		"another role's lease": {
			spoil: func(l *secretsv1.Lease, _ *secretsv1.SealedSecret, _ *secretsv1.SecretFields) { l.Name = other },
			want:  sallyport.UnexpectedAnswer,
		},
		"a role whose name begins alike": {
			spoil: func(l *secretsv1.Lease, _ *secretsv1.SealedSecret, _ *secretsv1.SecretFields) {
				l.Name = strings.Replace(l.Name, "/db/", "/db2/", 1)
			},
			want: sallyport.UnexpectedAnswer,
		},
		"no name": {
			spoil: func(l *secretsv1.Lease, _ *secretsv1.SealedSecret, _ *secretsv1.SecretFields) { l.Name = "" },
			want:  sallyport.UnexpectedAnswer,
		},
		"a name with more behind it": {
			spoil: func(l *secretsv1.Lease, _ *secretsv1.SealedSecret, _ *secretsv1.SecretFields) { l.Name += "/x" },
			want:  sallyport.UnexpectedAnswer,
		},
		"another lease of the role": {
			spoil: func(l *secretsv1.Lease, _ *secretsv1.SealedSecret, _ *secretsv1.SecretFields) {
				l.Name = dbRole + "/leases/" + strings.Repeat("f", 32)
			},
			want: sallyport.DecryptionFailed, revokes: 1,
		},
		"another owner": {
			spoil: func(l *secretsv1.Lease, _ *secretsv1.SealedSecret, _ *secretsv1.SecretFields) {
				l.Workload = "spiffe://test.example/other"
			},
			want: sallyport.UnexpectedAnswer, revokes: 1,
		},
		"no owner": {
			spoil: func(l *secretsv1.Lease, _ *secretsv1.SealedSecret, _ *secretsv1.SecretFields) { l.Workload = "" },
			want:  sallyport.UnexpectedAnswer, revokes: 1,
		},
		"an altered ciphertext": {
			spoil: func(_ *secretsv1.Lease, s *secretsv1.SealedSecret, _ *secretsv1.SecretFields) { s.Ciphertext[3] ^= 1 },
			want:  sallyport.DecryptionFailed, revokes: 1,
		},
		"a cut ciphertext": {
			spoil: func(_ *secretsv1.Lease, s *secretsv1.SealedSecret, _ *secretsv1.SecretFields) { s.Ciphertext = nil },
			want:  sallyport.DecryptionFailed, revokes: 1,
		},
		"an altered key": {
			spoil: func(_ *secretsv1.Lease, s *secretsv1.SealedSecret, _ *secretsv1.SecretFields) { s.Enc[0] ^= 1 },
			want:  sallyport.DecryptionFailed, revokes: 1,
		},
		"no key": {
			spoil: func(_ *secretsv1.Lease, s *secretsv1.SealedSecret, _ *secretsv1.SecretFields) { s.Enc = nil },
			want:  sallyport.DecryptionFailed, revokes: 1,
		},
		"another mechanism": {
			spoil: func(_ *secretsv1.Lease, s *secretsv1.SealedSecret, _ *secretsv1.SecretFields) {
				s.Kem = secretsv1.Kem_KEM_DHKEM_X25519
			},
			want: sallyport.UnexpectedAnswer, revokes: 1,
		},
		"plain, of another owner": {
			plain: true,
			spoil: func(l *secretsv1.Lease, _ *secretsv1.SealedSecret, _ *secretsv1.SecretFields) {
				l.Workload = "spiffe://test.example/other"
			},
			want: sallyport.UnexpectedAnswer, revokes: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVault(time.Minute, 0)
			v.spoil = func(_ string, l *secretsv1.Lease, s *secretsv1.SealedSecret, p *secretsv1.SecretFields) {
				test.spoil(l, s, p)
			}
			c, _ := v.connect(t)
			var options []sallyport.LeaseOption
			if test.plain {
				options = append(options, sallyport.Plain())
			}
			s, err := c.SecretRole(dbRole).Lease(t.Context(), options...)
			if s != nil || !errors.Is(err, test.want) {
				t.Errorf("%v, %v", s, err)
			}
			if v.called("revoke") != test.revokes || v.called("lease") != 1 {
				t.Errorf("%d revocations, %d leases", v.called("revoke"), v.called("lease"))
			}
			if err != nil && strings.Contains(err.Error(), "secret-of") {
				t.Errorf("the error says too much: %v", err)
			}
		})
	}
}

// formSwap answers in the form that was not asked for.
type formSwap struct{ *vault }

func (f formSwap) LeaseSecret(ctx context.Context, r *secretsv1.LeaseSecretRequest) (*secretsv1.LeaseSecretResponse, error) {
	reply, err := f.vault.LeaseSecret(ctx, r)
	if err == nil {
		switch r.GetLifetime().GetSeconds() {
		case 1:
			reply.Value = nil
		case 2:
			reply.Value = &secretsv1.LeaseSecretResponse_Plaintext{Plaintext: &secretsv1.SecretFields{}}
		case 3:
			reply.Value = &secretsv1.LeaseSecretResponse_Sealed{Sealed: &secretsv1.SealedSecret{}}
		case 4: // says that nothing has changed, of nothing known
			reply = &secretsv1.LeaseSecretResponse{Unchanged: true}
		}
	}
	return reply, err
}

func TestAValueInAnotherForm(t *testing.T) {
	v := newVault(time.Minute, 0)
	c, _ := v.connectAs(t, formSwap{v})
	for seconds, options := range map[int][]sallyport.LeaseOption{1: nil, 2: nil, 3: {sallyport.Plain()}, 4: nil} {
		options = append(options, sallyport.Lifetime(time.Duration(seconds)*time.Second))
		if s, err := c.SecretRole(dbRole).Lease(t.Context(), options...); s != nil || !errors.Is(err, sallyport.UnexpectedAnswer) {
			t.Errorf("%d: %v, %v", seconds, s, err)
		}
	}
	if n := len(v.alive()); n > 1 { // the last answer named none
		t.Errorf("%d leases were left", n)
	}
}

// To lease is repeated only when nothing can have been issued; the other verbs always.
func TestWhatIsRepeated(t *testing.T) {
	lost := status.Error(codes.Unavailable, "broken")
	for _, test := range []struct {
		verb string
		err  error
		want int // attempts
	}{
		{"lease", fault.New(fault.SourceThrottled, ""), 3},
		{"lease", fault.New(fault.AuditUnavailable, ""), 3},
		{"lease", fault.New(fault.SourceSealed, ""), 3},
		{"lease", fault.New(fault.QuotaExceeded, ""), 1},
		{"lease", fault.New(fault.PermissionDenied, ""), 1},
		{"lease", lost, 1},
		{"renew", lost, 3},
		{"revoke", lost, 3},
		{"get", lost, 3},
		{"list", lost, 3},
		{"revoke", fault.New(fault.StoreUnavailable, ""), 3},
		{"renew", fault.New(fault.LeaseNotRenewable, ""), 1},
	} {
		v := newVault(time.Minute, time.Hour)
		c, _ := v.connect(t)
		role := c.SecretRole(dbRole)
		s, err := role.Lease(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		v.mu.Lock()
		v.calls["lease"] = nil
		v.mu.Unlock()
		v.obstruct(func(_ context.Context, verb string, n int) error {
			if verb == test.verb && n < 3 {
				return test.err
			}
			return nil
		})
		name := s.Lease().Name
		switch test.verb {
		case "lease":
			_, err = role.Lease(t.Context())
		case "renew":
			_, err = role.Renew(t.Context(), name, 0)
		case "revoke":
			_, err = role.Revoke(t.Context(), name)
		case "get":
			_, err = role.Get(t.Context(), name)
		case "list":
			_, err = role.List(t.Context())
		}
		if v.called(test.verb) != test.want || (err == nil) != (test.want == 3) {
			t.Errorf("%s after %v: %d attempts, %v", test.verb, test.err, v.called(test.verb), err)
		}
	}
}

// A gateway that is not there has issued nothing: then to lease is repeated too.
func TestLeasingWaitsForAGatewayThatStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(time.Minute, 0)
		c, l := v.connect(t, func(o *sallyport.Options) { o.Attempts = 100 })
		l.stop()
		go func() {
			time.Sleep(3 * time.Second)
			l.start()
		}()
		if _, err := c.SecretRole(dbRole).Lease(t.Context()); err != nil || v.called("lease") != 1 {
			t.Errorf("%v, %d calls", err, v.called("lease"))
		}
	})
}

func TestALostAnswerIsNotAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(time.Minute, 0)
		c, l := v.connect(t, func(o *sallyport.Options) { o.Attempts = 100 })
		v.obstruct(func(ctx context.Context, verb string, _ int) error {
			if verb == "lease" {
				go l.stop()
				<-ctx.Done()
			}
			return nil
		})
		go func() {
			time.Sleep(time.Second)
			l.start()
		}()
		if _, err := c.SecretRole(dbRole).Lease(t.Context()); !errors.Is(err, sallyport.Unavailable) || v.called("lease") != 1 {
			t.Errorf("%v, %d calls", err, v.called("lease"))
		}
		time.Sleep(2 * time.Second)
	})
}

func TestVerbsOfALease(t *testing.T) {
	v := newVault(time.Minute, 90*time.Second)
	c, _ := v.connect(t)
	role, other := c.SecretRole(dbRole), c.SecretRole("tenants/demo/secretRoles/other")
	var names []string
	for i := range 7 {
		r := role
		if i == 3 {
			r = other
		}
		s, err := r.Lease(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, s.Lease().Name)
	}
	listed, err := role.List(t.Context())
	if err != nil || len(listed) != 6 || v.called("list") != 4 {
		t.Errorf("%d listed in %d pages: %v", len(listed), v.called("list"), err)
	}
	got, err := role.Get(t.Context(), names[0])
	if err != nil || got.Name != names[0] || got.Workload != app || got.Source != "fake" || !got.Renewable || !got.Revocable {
		t.Errorf("%+v, %v", got, err)
	}
	time.Sleep(10 * time.Millisecond)
	renewed, err := role.Renew(t.Context(), names[0], time.Minute)
	if err != nil || !renewed.Expires.After(got.Expires) {
		t.Errorf("%+v, %v", renewed, err)
	}
	for range 2 {
		if l, err := role.Revoke(t.Context(), names[0]); err != nil || l.State != sallyport.LeaseEnded {
			t.Errorf("%+v, %v", l, err)
		}
	}
	if _, err := role.Renew(t.Context(), names[0], 0); !errors.Is(err, sallyport.LeaseGone) {
		t.Errorf("renewing what is gone: %v", err)
	}
	for _, name := range []string{names[3], "", dbRole, dbRole + "/leases/1", dbRole + "/leases/00", dbRole + "/leases/" + strings.Repeat("x", 32)} {
		if _, err := role.Get(t.Context(), name); !errors.Is(err, sallyport.InvalidArgument) {
			t.Errorf("%q, which is not of the role: %v", name, err)
		}
	}
	if _, err := role.Get(t.Context(), dbRole+"/leases/"+strings.Repeat("f", 32)); !errors.Is(err, sallyport.NotFound) {
		t.Errorf("an unknown lease: %v", err)
	}
}

// misdirected answers about another lease.
type misdirected struct{ *vault }

func (m misdirected) GetLease(ctx context.Context, r *secretsv1.GetLeaseRequest) (*secretsv1.Lease, error) {
	l, err := m.vault.GetLease(ctx, r)
	if err == nil {
		l.Name = dbRole + "/leases/" + strings.Repeat("f", 32)
	}
	return l, err
}

func TestAnAnswerAboutAnotherLease(t *testing.T) {
	v := newVault(time.Minute, 0)
	c, _ := v.connectAs(t, misdirected{v})
	s, err := c.SecretRole(dbRole).Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.SecretRole(dbRole).Get(t.Context(), s.Lease().Name); !errors.Is(err, sallyport.UnexpectedAnswer) {
		t.Error(err)
	}
}
