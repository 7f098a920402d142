package vault

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/sallyport/sallyport/crypto/secret"
	"github.com/sallyport/sallyport/gateway/fault"
)

// maxCredential is how long a file that signs us in may be.
const maxCredential = 64 << 10

// AppRole signs in by a role id and a secret id.
type AppRole struct {
	Mount  string // "approle" if empty
	RoleID string
	// SecretIDFile holds the secret id or, if Wrapped, a token that unwraps it, once.
	// The file is read at every signing in; what was unwrapped is kept in memory until
	// the file changes.
	SecretIDFile string
	Wrapped      bool
}

// Certificate signs in by a client certificate. The files are read at every signing in.
type Certificate struct {
	Mount             string // "cert" if empty
	Role              string // any that matches, if empty
	CertFile, KeyFile string // PEM
}

// Kubernetes signs in by the token of a service account. The file is read at every
// signing in.
type Kubernetes struct {
	Mount     string // "kubernetes" if empty
	Role      string
	TokenFile string
}

// JWT signs in by a JWT that somebody else keeps fresh. The file is read at every
// signing in.
type JWT struct {
	Mount     string // "jwt" if empty
	Role      string
	TokenFile string
}

// signIn gives a new token for the gateway itself.
func (s *Source) signIn(ctx context.Context) (secret.Bytes, grant, error) {
	s.door.reopen() // its authorities may have been replaced
	c, err := s.loginCall(ctx)
	if err != nil {
		return secret.Bytes{}, grant{}, err
	}
	defer c.body.wipe()
	a, err := s.send(ctx, c)
	if err != nil {
		return secret.Bytes{}, grant{}, err
	}
	defer a.wipe()
	auth, err := authOf(a)
	if err != nil {
		return secret.Bytes{}, grant{}, err
	}
	if kind, err := auth.object["token_type"].name(); err != nil || kind == "batch" {
		return secret.Bytes{}, grant{}, fault.New(fault.SourceRefused,
			"signing in to Vault gives a batch token, which cannot make child tokens: set token_type=service")
	}
	token, err := auth.take()
	if err == nil {
		err = s.checkNamespace(ctx, token)
	}
	if err != nil {
		token.Wipe()
		return secret.Bytes{}, grant{}, err
	}
	return token, grant{auth.ttl, auth.renewable}, nil
}

// checkNamespace asks where a new token is. A Vault without namespaces does not refuse
// one: it ignores it, and everything would go to where it was not meant for.
func (s *Source) checkNamespace(ctx context.Context, token secret.Bytes) error {
	want := strings.Trim(s.config.Namespace, "/")
	if want == "" || want == "root" {
		return nil
	}
	a, err := s.send(ctx, &call{method: http.MethodGet, path: "auth/token/lookup-self", token: token})
	if err != nil {
		return err
	}
	defer a.wipe()
	top, err := parse(a.text)
	if err != nil {
		return malformed("Vault's answer tells of no token")
	}
	data, err := top["data"].object()
	if err != nil {
		return malformed("Vault's answer tells of no token")
	}
	if got, err := data["namespace_path"].name(); err != nil || strings.Trim(got, "/") != want {
		return fault.New(fault.SourceRefused, "Vault does not know the namespace")
	}
	return nil
}

func (s *Source) loginCall(ctx context.Context) (*call, error) {
	c := s.config
	login := func(mount string, all map[string]any, name, file string) (*call, error) {
		value, err := readCredential(file)
		if err != nil {
			return nil, err
		}
		defer value.Wipe()
		b, err := secretFields(all, name, value)
		if err != nil {
			return nil, err
		}
		return s.ownCall("auth/"+mount+"/login", b)
	}
	switch {
	case c.Kubernetes != nil:
		return login(c.Kubernetes.Mount, map[string]any{"role": c.Kubernetes.Role}, "jwt", c.Kubernetes.TokenFile)
	case c.JWT != nil:
		return login(c.JWT.Mount, map[string]any{"role": c.JWT.Role}, "jwt", c.JWT.TokenFile)
	case c.Certificate != nil:
		all := map[string]any{}
		if c.Certificate.Role != "" {
			all["name"] = c.Certificate.Role
		}
		return s.ownCall("auth/"+c.Certificate.Mount+"/login", fields(all))
	}
	role := map[string]any{"role_id": c.AppRole.RoleID}
	if !c.AppRole.Wrapped {
		return login(c.AppRole.Mount, role, "secret_id", c.AppRole.SecretIDFile)
	}
	id, err := s.unwrapped(ctx)
	if err != nil {
		return nil, err
	}
	b, err := secretFields(role, "secret_id", id)
	if err != nil {
		return nil, err
	}
	return s.ownCall("auth/"+c.AppRole.Mount+"/login", b)
}

// ownCall makes a call by which the gateway gets or renews its own token. A client
// certificate is shown to Vault for that, and for nothing else: Vault asks for it
// again when it renews.
func (s *Source) ownCall(path string, b *body) (*call, error) {
	c := &call{method: http.MethodPut, path: path, body: b, anonymous: true}
	if s.config.Certificate == nil {
		return c, nil
	}
	pair, err := tls.LoadX509KeyPair(s.config.Certificate.CertFile, s.config.Certificate.KeyFile)
	if err != nil {
		return nil, fault.Wrap(fault.SourceRefused, "the gateway's certificate for Vault cannot be read", err)
	}
	if c.transport, err = s.door.newTransport(&pair); err != nil {
		return nil, fault.Wrap(fault.SourceUntrusted, "", err)
	}
	c.transport.DisableKeepAlives = true
	return c, nil
}

// readCredential reads what signs us in, without the space around it.
func readCredential(path string) (secret.Bytes, error) {
	bad := func(err error) (secret.Bytes, error) {
		return secret.Bytes{}, fault.Wrap(fault.SourceRefused, "the file that signs the gateway in to Vault cannot be read", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return bad(err)
	}
	defer f.Close()
	buffer := make([]byte, maxCredential+1)
	defer secret.Wipe(buffer)
	n, err := io.ReadFull(f, buffer)
	if err == nil {
		return bad(errors.New("it is too long"))
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return bad(err)
	}
	begin, end := 0, n
	for begin < end && buffer[begin] <= ' ' {
		begin++
	}
	for end > begin && buffer[end-1] <= ' ' {
		end--
	}
	value := secret.Copy(buffer[begin:end])
	if !printable(value) {
		value.Wipe()
		return bad(errors.New("it is empty, or no text of one line"))
	}
	return value, nil
}

// wrapped is a secret id that came wrapped. Only a flight of the session touches it,
// and there is one at a time.
type wrapped struct {
	id secret.Bytes
	of [sha256.Size]byte // the file that it came from
}

// unwrapped gives the secret id. A wrapping token opens once: that somebody else has
// opened it is how an interception shows.
func (s *Source) unwrapped(ctx context.Context) (secret.Bytes, error) {
	token, err := readCredential(s.config.AppRole.SecretIDFile)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer token.Wipe()
	var of [sha256.Size]byte
	if err := token.Use(func(b []byte) error { of = sha256.Sum256(b); return nil }); err != nil {
		return secret.Bytes{}, err
	}
	if s.wrapped.of == of && !s.wrapped.id.Wiped() {
		return s.wrapped.id, nil
	}
	if err := s.checkWrapping(ctx, token); err != nil {
		return secret.Bytes{}, s.alarm(ctx, err)
	}
	a, err := s.send(ctx, &call{method: http.MethodPut, path: "sys/wrapping/unwrap", token: token, body: fields(nil), mute: true})
	if err != nil {
		return secret.Bytes{}, s.alarm(ctx, err)
	}
	defer a.wipe()
	top, err := parse(a.text)
	if err != nil {
		return secret.Bytes{}, malformed("what Vault unwraps is no secret id")
	}
	data, err := top["data"].object()
	if err != nil {
		return secret.Bytes{}, malformed("what Vault unwraps is no secret id")
	}
	id, err := data["secret_id"].text()
	if err != nil {
		return secret.Bytes{}, malformed("what Vault unwraps is no secret id")
	}
	s.wrapped.id.Wipe()
	s.wrapped.id, s.wrapped.of = id, of
	return id, nil
}

// checkWrapping asks where a wrapping token came from: one that wraps something else,
// put in the place of ours, would make us sign in as somebody else.
func (s *Source) checkWrapping(ctx context.Context, token secret.Bytes) error {
	b, err := secretFields(nil, "token", token)
	if err != nil {
		return err
	}
	defer b.wipe()
	a, err := s.send(ctx, &call{method: http.MethodPut, path: "sys/wrapping/lookup", anonymous: true, body: b, mute: true})
	if err != nil {
		return err
	}
	defer a.wipe()
	top, err := parse(a.text)
	if err != nil {
		return malformed("Vault's answer does not tell of a wrapping token")
	}
	data, err := top["data"].object()
	if err != nil {
		return malformed("Vault's answer does not tell of a wrapping token")
	}
	path, err := data["creation_path"].name()
	prefix := "auth/" + s.config.AppRole.Mount + "/role/"
	if err != nil || !strings.HasPrefix(path, prefix) || !strings.HasSuffix(path, "/secret-id") {
		return fault.New(fault.SourceRefused, "the wrapping token for Vault wraps no secret id of the method that is configured")
	}
	return nil
}

// alarm tells people of a wrapping token that does not open.
func (s *Source) alarm(ctx context.Context, err error) error {
	if fault.From(err).Reason != fault.SourceRefused {
		return err
	}
	s.config.Logger.ErrorContext(ctx, "the wrapping token for Vault does not open: unless an earlier start of this gateway has used it, "+
		"or it is too old, somebody else has the secret id; revoke its accessor and find out", "source", s.config.Name, "error", err)
	return fault.Wrap(fault.SourceRefused, "the wrapping token for Vault was used already, is too old, or is not ours", err)
}
