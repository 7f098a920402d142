// Package vault is a source of secrets over HashiCorp Vault, or OpenBao: dynamic
// database credentials, certificates of the PKI engine, KV version 2, AWS, and any
// path that answers with a lease.
//
// Every credential hangs on a child token that is made for it alone: an orphan with
// one policy for one path, two uses, and the lease's own lifetime. Its accessor is
// durable before the secret is asked for, and Vault revokes what a token was given
// together with the token. So an orphaned credential is impossible, the end of the
// gateway's own token ends nothing, and that token can read no secret.
// docs/operations/source-vault.md says what Vault must allow it.
package vault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/sallyport/sallyport/gateway/lease"
)

const (
	// DefaultTimeout bounds each call if the configuration says nothing.
	DefaultTimeout = 10 * time.Second
	// DefaultRequestLimit is Vault's default for max_request_duration.
	DefaultRequestLimit = 90 * time.Second
	// DefaultName is the token role and the prefix of policies.
	DefaultName = "sallyport"

	closeTimeout = 2 * time.Second
	// maxSeconds is the longest duration in an answer that is believed: ten years.
	maxSeconds = 10 * 366 * 24 * 3600
)

// Config says where Vault is and how the gateway signs in: exactly one of AppRole,
// Certificate, Kubernetes and JWT. Nothing is taken from the environment.
type Config struct {
	Name string // of the source, for the log
	// Address is https://host:port; http only on loopback.
	Address string
	// CAFile is a PEM bundle of the authorities that vouch for Vault; those of the
	// system if empty. ServerName overrides the name in the address.
	CAFile, ServerName string
	Namespace          string
	// Timeout bounds each call; DefaultTimeout if 0.
	Timeout time.Duration
	// RequestLimit is Vault's max_request_duration: how long it works on a call at most,
	// also when we have given it up. DefaultRequestLimit, which is Vault's, if 0.
	RequestLimit time.Duration

	AppRole     *AppRole
	Certificate *Certificate
	Kubernetes  *Kubernetes
	JWT         *JWT

	// TokenRole is the role of auth/token that child tokens are made through, and
	// PolicyPrefix begins the names of their policies; DefaultName if empty.
	TokenRole, PolicyPrefix string

	Logger *slog.Logger     // nil for none
	Now    func() time.Time // nil for time.Now
}

// Source is a Vault. It is safe for concurrent use.
type Source struct {
	config  Config
	clock   *lease.Clock
	client  *api.Client
	door    *door
	breaker breaker
	session session
	wrapped wrapped
	// life ends with Close.
	life context.Context
	end  context.CancelFunc
}

var _ lease.Source = (*Source)(nil)

// New makes a source. It asks nobody: that Vault does not answer yet is no error.
// Close ends it.
func New(c Config) (*Source, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	base, err := url.Parse(c.Address)
	if err != nil {
		return nil, errors.New("address is no URL")
	}
	s := &Source{
		config: c, clock: lease.NewClock(c.Now),
		door: &door{base: base, namespace: c.Namespace, caFile: c.CAFile, name: c.ServerName},
	}
	s.breaker = breaker{now: c.Now, threshold: breakerThreshold}
	s.session.source, s.session.signing = s, breaker{now: c.Now, threshold: 1}
	if _, err := s.door.shared(); err != nil {
		return nil, err
	}
	if s.client, err = newClient(s.door, c.Address); err != nil {
		return nil, err
	}
	s.life, s.end = context.WithCancel(context.Background())
	return s, nil
}

// newClient makes the library's client over our door. The library reads VAULT_ and
// proxy variables while it makes one, and gives up if it does not understand them;
// what it understands it may keep, for the door ignores it.
func newClient(d *door, address string) (*api.Client, error) {
	client, err := api.NewClient(&api.Config{
		Address: address,
		HttpClient: &http.Client{
			Transport:     d,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		DisableRedirects: true,
		MaxRetries:       0,
		CheckRetry:       func(context.Context, *http.Response, error) (bool, error) { return false, nil },
	})
	if err != nil {
		return nil, fmt.Errorf("Vault's client library refuses the environment: unset the VAULT_ variables: %w", err) //nolint:staticcheck // a name
	}
	client.ClearToken()
	client.ClearNamespace()
	client.SetHeaders(http.Header{})
	return client, nil
}

var identifier = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// complete puts defaults where the configuration is silent, and refuses what cannot be.
func (c *Config) complete() error {
	u, err := url.Parse(c.Address)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" ||
		u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return errors.New("address must be https://host:port, or http on loopback")
	}
	if strings.ContainsFunc(c.Namespace, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("namespace must be plain text")
	}
	def := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	def(&c.TokenRole, DefaultName)
	def(&c.PolicyPrefix, DefaultName)
	if !identifier.MatchString(c.TokenRole) || !identifier.MatchString(c.PolicyPrefix) {
		return errors.New("token role and policy prefix must have 1 to 63 of a-z, 0-9 and -, beginning with a letter")
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.RequestLimit == 0 {
		c.RequestLimit = DefaultRequestLimit
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c.completeMethod()
}

func (c *Config) completeMethod() error {
	var mounts []string
	add := func(mount, name string, required ...string) (string, error) {
		if mount == "" {
			mount = name
		}
		mounts = append(mounts, mount)
		for _, s := range required {
			if s == "" {
				return mount, errors.New("signing in by " + name + ": a field is missing")
			}
		}
		if !cleanPath(mount) {
			return mount, errors.New("signing in by " + name + ": mount is no path")
		}
		return mount, nil
	}
	var err error
	if a := c.AppRole; a != nil {
		own := *a
		c.AppRole = &own
		own.Mount, err = add(a.Mount, "approle", a.RoleID, a.SecretIDFile)
	}
	if a := c.Certificate; a != nil && err == nil {
		own := *a
		c.Certificate = &own
		own.Mount, err = add(a.Mount, "cert", a.CertFile, a.KeyFile)
	}
	if a := c.Kubernetes; a != nil && err == nil {
		own := *a
		c.Kubernetes = &own
		own.Mount, err = add(a.Mount, "kubernetes", a.Role, a.TokenFile)
	}
	if a := c.JWT; a != nil && err == nil {
		own := *a
		c.JWT = &own
		own.Mount, err = add(a.Mount, "jwt", a.Role, a.TokenFile)
	}
	if err == nil && len(mounts) != 1 {
		err = errors.New("exactly one way of signing in must be configured")
	}
	return err
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Kind implements lease.Source.
func (s *Source) Kind() string { return "vault" }

// Failure implements lease.Source: why Vault is not being asked, or refuses to let the
// gateway sign in.
func (s *Source) Failure() error {
	if err := s.breaker.failure(); err != nil {
		return err
	}
	return s.session.signing.failure()
}

// Close ends the gateway's own token and connections. Leases go on.
func (s *Source) Close() {
	s.end()
	s.session.close()
	s.wrapped.id.Wipe()
	s.door.reopen()
}
