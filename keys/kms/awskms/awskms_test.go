package awskms

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/sallyport/sallyport/keys"
	"github.com/sallyport/sallyport/keys/kms/kmstest"
)

// quick makes failures quick; it is generous where moto must answer.
var quick = Retry{Attempts: 3, Attempt: 5 * time.Second, Total: 15 * time.Second, Base: time.Millisecond, Max: 5 * time.Millisecond}

func TestConformance(t *testing.T) {
	kmstest.Run(t, open(t, createKey(t), motoURL, quick))
}

// TestEncryptionContextIsReadable asks moto, as an auditor would CloudTrail, under
// which pairs a keyset was wrapped.
func TestEncryptionContextIsReadable(t *testing.T) {
	keyARN := createKey(t)
	wrapped, err := open(t, keyARN, motoURL, quick).Wrap(t.Context(), []byte("keyset"), kmstest.Binding())
	if err != nil {
		t.Fatal(err)
	}
	pairs := map[string]string{
		"deployment": "conformance", "environment": "test", "tenant": "acme",
		"keyring": "00000000000000000000000000000001", "version": "7", "purpose": "aead",
	}
	out, err := admin().Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: wrapped, EncryptionContext: pairs})
	if err != nil || string(out.Plaintext) != "keyset" {
		t.Errorf("with the pairs: %v", err)
	}
	delete(pairs, "purpose")
	if _, err := admin().Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: wrapped, EncryptionContext: pairs}); err == nil {
		t.Error("opens with a pair missing")
	}
}

// TestKeyIsPinned: what another key of the account wrapped does not open.
func TestKeyIsPinned(t *testing.T) {
	one, two := open(t, createKey(t), motoURL, quick), open(t, createKey(t), motoURL, quick)
	wrapped, err := one.Wrap(t.Context(), []byte("keyset"), kmstest.Binding())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := two.Unwrap(t.Context(), wrapped, kmstest.Binding()); !errors.Is(err, keys.ErrKEKRefused) {
		t.Errorf("got %v", err)
	}
}

// TestKeyStates: what an administrator does to the key in KMS stops it.
func TestKeyStates(t *testing.T) {
	for name, act := range map[string]func(ctx context.Context, id *string) error{
		"disabled": func(ctx context.Context, id *string) error {
			_, err := admin().DisableKey(ctx, &kms.DisableKeyInput{KeyId: id})
			return err
		},
		"pending deletion": func(ctx context.Context, id *string) error {
			_, err := admin().ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: id, PendingWindowInDays: aws.Int32(7)})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			keyARN := createKey(t)
			p := newProxy(t, enforceState(keyARN))
			k := open(t, keyARN, p.URL, quick)
			wrapped, err := k.Wrap(t.Context(), []byte("keyset"), kmstest.Binding())
			if err != nil {
				t.Fatal(err)
			}
			_, id, _ := strings.Cut(keyARN, ":key/") // moto knows no ARN here
			if err := act(t.Context(), &id); err != nil {
				t.Fatal(err)
			}
			before := p.requests.Load()
			if _, err := k.Unwrap(t.Context(), wrapped, kmstest.Binding()); !errors.Is(err, keys.ErrKEKRefused) || errors.Is(err, keys.ErrKEKMismatch) {
				t.Errorf("Unwrap: %v", err)
			}
			if n := p.requests.Load() - before; n != 1 {
				t.Errorf("a refusal was tried %d times", n)
			}
			if _, err := k.Wrap(t.Context(), []byte("keyset"), kmstest.Binding()); !errors.Is(err, keys.ErrKEKRefused) {
				t.Errorf("Wrap: %v", err)
			}
		})
	}
	t.Run("unknown", func(t *testing.T) {
		k := open(t, "arn:aws:kms:"+region+":123456789012:key/00000000-0000-0000-0000-000000000000", motoURL, quick)
		if _, err := k.Wrap(t.Context(), []byte("keyset"), kmstest.Binding()); !errors.Is(err, keys.ErrKEKRefused) {
			t.Errorf("Wrap: %v", err)
		}
	})
}

// TestFaults: each fault for good, its family and how often it is tried.
func TestFaults(t *testing.T) {
	keyARN := createKey(t)
	wrapped, err := open(t, keyARN, motoURL, quick).Wrap(t.Context(), []byte("keyset"), kmstest.Binding())
	if err != nil {
		t.Fatal(err)
	}
	other := `{"KeyId":"arn:aws:kms:eu-central-1:1:key/other","Plaintext":"AAAA","CiphertextBlob":"AAAA"}`
	for name, c := range map[string]struct {
		fault    fault
		want     error
		attempts int64
	}{
		"denied":             {answer(400, "AccessDeniedException"), keys.ErrKEKRefused, 1},
		"unknown refusal":    {answer(400, "BrandNewException"), keys.ErrKEKRefused, 1},
		"disabled":           {answer(400, "DisabledException"), keys.ErrKEKRefused, 1},
		"bad state":          {answer(400, "KMSInvalidStateException"), keys.ErrKEKRefused, 1},
		"bad signature":      {answer(403, "InvalidSignatureException"), keys.ErrKEKRefused, 1},
		"incorrect key":      {answer(400, "IncorrectKeyException"), keys.ErrKEKMismatch, 1},
		"invalid ciphertext": {answer(400, "InvalidCiphertextException"), keys.ErrKEKMismatch, 1},
		"throttled":          {answer(400, "ThrottlingException"), keys.ErrKEKThrottled, 3},
		"limit":              {answer(400, "LimitExceededException"), keys.ErrKEKThrottled, 3},
		"429":                {answer(429, "Whatever"), keys.ErrKEKThrottled, 3},
		"internal":           {answer(500, "KMSInternalException"), keys.ErrKEKUnreachable, 3},
		"dependency":         {answer(503, "DependencyTimeoutException"), keys.ErrKEKUnreachable, 3},
		"key unavailable":    {answer(500, "KeyUnavailableException"), keys.ErrKEKUnreachable, 3},
		"expired session":    {answer(400, "ExpiredTokenException"), keys.ErrKEKUnreachable, 3},
		"bad gateway":        {reply(502, "<html>"), keys.ErrKEKUnreachable, 3},
		"not JSON":           {reply(200, "<html>"), keys.ErrKEKUnreachable, 3},
		"redirect":           {reply(302, ""), keys.ErrKEKUnreachable, 3},
		"empty answer":       {reply(200, "{}"), keys.ErrKEKRefused, 1},
		"another key":        {reply(200, other), keys.ErrKEKRefused, 1},
		"hang":               {hang, keys.ErrKEKUnreachable, 3},
		"cut":                {lost, keys.ErrKEKUnreachable, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, c.fault)
			r := quick
			r.Attempt = 300 * time.Millisecond
			k := open(t, keyARN, p.URL, r)
			for verb, act := range map[string]func() ([]byte, error){
				"Unwrap": func() ([]byte, error) { return k.Unwrap(t.Context(), wrapped, kmstest.Binding()) },
				"Wrap":   func() ([]byte, error) { return k.Wrap(t.Context(), []byte("keyset"), kmstest.Binding()) },
			} {
				before := p.requests.Load()
				got, err := act()
				if !errors.Is(err, c.want) || got != nil {
					t.Fatalf("%s: %v, want %v", verb, err, c.want)
				}
				for _, family := range []error{keys.ErrKEKRefused, keys.ErrKEKThrottled, keys.ErrKEKUnreachable} {
					if errors.Is(err, family) && !errors.Is(c.want, family) {
						t.Errorf("%s: also %v", verb, family)
					}
				}
				if strings.Contains(err.Error(), "hidden") {
					t.Errorf("%s repeats the service's message: %v", verb, err)
				}
				if n := p.requests.Load() - before; n != c.attempts {
					t.Errorf("%s: %d attempts, want %d", verb, n, c.attempts)
				}
			}
		})
	}
}

// TestRecovers: each fault that is tried again, once or twice, then KMS answers.
func TestRecovers(t *testing.T) {
	keyARN := createKey(t)
	for name, f := range map[string]fault{
		"throttled": answer(400, "ThrottlingException"), "internal": answer(500, "KMSInternalException"),
		"lost": lost, "done but reported lost": doneButLost,
	} {
		t.Run(name, func(t *testing.T) {
			k := open(t, keyARN, newProxy(t, pass, f, f).URL, quick)
			wrapped, err := k.Wrap(t.Context(), []byte("keyset"), kmstest.Binding())
			if err != nil {
				t.Fatal(err)
			}
			again := open(t, keyARN, newProxy(t, pass, f).URL, quick)
			got, err := again.Unwrap(t.Context(), wrapped, kmstest.Binding())
			if err != nil || string(got) != "keyset" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// TestDeadlines: the caller's context ends a hanging call, and so does Total.
func TestDeadlines(t *testing.T) {
	keyARN := createKey(t)
	p := newProxy(t, hang)
	total := Retry{Attempts: 10, Attempt: time.Hour, Total: 200 * time.Millisecond, Base: time.Millisecond}
	_, err := open(t, keyARN, p.URL, total).Wrap(t.Context(), []byte("x"), kmstest.Binding())
	if !errors.Is(err, keys.ErrKEKUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Total: %v", err)
	}
	patient := Retry{Attempt: time.Hour, Total: time.Hour}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	_, err = open(t, keyARN, p.URL, patient).Wrap(ctx, []byte("x"), kmstest.Binding())
	if !errors.Is(err, keys.ErrKEKUnreachable) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestNobodyListens: the port was closed a moment ago.
func TestNobodyListens(t *testing.T) {
	p := newProxy(t, pass)
	address := p.URL
	p.Close()
	_, err := open(t, createKey(t), address, quick).Wrap(t.Context(), []byte("x"), kmstest.Binding())
	if !errors.Is(err, keys.ErrKEKUnreachable) {
		t.Errorf("got %v", err)
	}
}

// TestRedirectsAreNotFollowed: what answers is the endpoint and nobody else.
func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := newProxy(t, pass)
	k := open(t, createKey(t), newProxy(t, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		http.Redirect(w, r, elsewhere.URL, http.StatusFound)
	}).URL, quick)
	if _, err := k.Wrap(t.Context(), []byte("keyset"), kmstest.Binding()); !errors.Is(err, keys.ErrKEKUnreachable) {
		t.Errorf("got %v", err)
	}
	if n := elsewhere.requests.Load(); n != 0 {
		t.Errorf("%d requests were redirected", n)
	}
}

// TestEnvironmentIsIgnored sets every variable that leads the SDK elsewhere.
func TestEnvironmentIsIgnored(t *testing.T) {
	bad := newProxy(t, answer(400, "AccessDeniedException"))
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": bad.URL, "AWS_ENDPOINT_URL_KMS": bad.URL, "AWS_REGION": "us-east-1", "AWS_PROFILE": "none",
		"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_CONFIG_FILE": "/nonexistent",
		"AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "HTTP_PROXY": bad.URL, "HTTPS_PROXY": bad.URL, "AWS_MAX_ATTEMPTS": "9",
		"AWS_USE_FIPS_ENDPOINT": "true", "AWS_EC2_METADATA_SERVICE_ENDPOINT": bad.URL,
	} {
		t.Setenv(name, value)
	}
	if _, err := open(t, createKey(t), motoURL, quick).Wrap(t.Context(), []byte("x"), kmstest.Binding()); err != nil {
		t.Error(err)
	}
	if n := bad.requests.Load(); n != 0 {
		t.Errorf("%d requests went where the environment said", n)
	}
	// Go never uses a proxy for loopback addresses, so the requests cannot show this.
	if newTransport().Proxy != nil {
		t.Error("the transport uses the environment's proxy")
	}
}

func TestCredentials(t *testing.T) {
	keyARN := createKey(t)
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	token := write("token", "header.payload.signature")
	file := write("file", "[default]\nregion = x\n[vault]\naws_access_key_id = A\naws_secret_access_key = PRIVATE\n")
	for name, c := range map[string]struct {
		credentials Credentials
		want        error
	}{
		"profile":      {Credentials{File: file, Profile: "vault"}, nil},
		"no keys":      {Credentials{File: file}, keys.ErrKEKUnreachable},
		"no profile":   {Credentials{File: file, Profile: "other"}, keys.ErrKEKUnreachable},
		"no file":      {Credentials{File: filepath.Join(dir, "none")}, keys.ErrKEKUnreachable},
		"web identity": {Credentials{WebIdentity: &WebIdentity{"arn:aws:iam::123456789012:role/gateway", "sallyport", token, motoURL}}, nil},
		"no token":     {Credentials{WebIdentity: &WebIdentity{"arn:aws:iam::123456789012:role/gateway", "sallyport", token + "x", motoURL}}, keys.ErrKEKUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := New(Config{KeyARN: keyARN, Endpoint: motoURL, Credentials: c.credentials, Retry: quick})
			if err != nil {
				t.Fatal(err)
			}
			if _, err = k.Wrap(t.Context(), []byte("x"), kmstest.Binding()); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "PRIVATE") {
				t.Errorf("the error quotes the file: %v", err)
			}
		})
	}
}

// TestCredentialsFileIsReadAgain: a provider that has expired takes the new keys.
func TestCredentialsFileIsReadAgain(t *testing.T) {
	path := credentialsFile(t)
	c := Credentials{File: path}
	first, err := c.fromFile(t.Context())
	if err != nil || first.AccessKeyID != "AKIDEXAMPLE" || !first.CanExpire || time.Until(first.Expires) > 10*time.Minute {
		t.Fatalf("%+v, %v", first.AccessKeyID, err)
	}
	if err := os.WriteFile(path, []byte("[default]\naws_access_key_id=NEW\naws_secret_access_key=b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if second, err := c.fromFile(t.Context()); err != nil || second.AccessKeyID != "NEW" {
		t.Errorf("%v, %v", second.AccessKeyID, err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{KeyARN: "arn:aws:kms:eu-central-1:123456789012:key/1234", Credentials: Credentials{Instance: true}}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Config){
		"alias":            func(c *Config) { c.KeyARN = "arn:aws:kms:eu-central-1:123456789012:alias/x" },
		"id alone":         func(c *Config) { c.KeyARN = "1234" },
		"other service":    func(c *Config) { c.KeyARN = "arn:aws:s3:eu-central-1:123456789012:key/1234" },
		"no region":        func(c *Config) { c.KeyARN = "arn:aws:kms::123456789012:key/1234" },
		"plain http":       func(c *Config) { c.Endpoint = "http://kms.example.com" },
		"loopback by name": func(c *Config) { c.Endpoint = "http://localhost:1" },
		"no host":          func(c *Config) { c.Endpoint = "https://" },
		"user in URL":      func(c *Config) { c.Endpoint = "https://a:b@kms.example.com" },
		"no credentials":   func(c *Config) { c.Credentials = Credentials{} },
		"two credentials":  func(c *Config) { c.Credentials.File = "x" },
		"half an identity": func(c *Config) { c.Credentials = Credentials{WebIdentity: &WebIdentity{RoleARN: "x"}} },
		"many attempts":    func(c *Config) { c.Retry.Attempts = 11 },
		"negative time":    func(c *Config) { c.Retry.Total = -1 },
	} {
		c := good
		spoil(&c)
		if _, err := New(c); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPausesAreJittered: full jitter stays under a doubling, bounded ceiling.
func TestPausesAreJittered(t *testing.T) {
	r, err := Retry{Base: 10 * time.Millisecond, Max: 35 * time.Millisecond}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	for n, ceiling := range map[int]time.Duration{1: 10, 2: 20, 3: 35, 9: 35} {
		ceiling *= time.Millisecond
		var least, most time.Duration = ceiling, 0
		for range 2000 {
			p := r.pause(n)
			least, most = min(least, p), max(most, p)
		}
		if most > ceiling || most < ceiling*9/10 || least > ceiling/10 {
			t.Errorf("after attempt %d: from %v to %v, want up to %v", n, least, most, ceiling)
		}
	}
}

func TestCodesThatAreNone(t *testing.T) {
	if got := printable("x\ny"); got != "unreadable code" {
		t.Errorf("got %q", got)
	}
	if got := printable(strings.Repeat("x", http.StatusOK)); got != "unreadable code" {
		t.Errorf("got %q", got)
	}
}
