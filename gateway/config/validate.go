package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/sallyport/sallyport/keys"
)

// checker collects problems.
type checker struct{ problems []error }

func (c *checker) require(ok bool, format string, args ...any) {
	if !ok {
		c.problems = append(c.problems, fmt.Errorf("config: "+format, args...))
	}
}

// Validate lists every problem of the configuration. It opens no file.
func (c *Config) Validate() error {
	k := &checker{}
	k.require(keys.ValidID(c.Deployment), "deployment must have 1 to 63 of a-z, 0-9 and -, beginning with a letter")
	k.require(keys.ValidID(c.Environment), "environment must have 1 to 63 of a-z, 0-9 and -, beginning with a letter")
	c.validateListen(k)
	k.require(c.TLS.Certificate != "" && c.TLS.Key != "", "tls.certificate and tls.key are required")
	c.validateTrust(k)
	k.require(c.Store.SQLite != "", "store.sqlite is required")
	c.validateKEK(k)
	k.require(c.Audit.Directory != "", "audit.directory is required")
	k.require(c.Audit.Origin != "" && !strings.ContainsAny(c.Audit.Origin, " +\n\t") && len(c.Audit.Origin) <= 60,
		"audit.origin must have 1 to 60 bytes, without spaces and +")
	k.require(c.Audit.Key != "" && c.Audit.PseudonymKey != "", "audit.key and audit.pseudonym_key are required")
	k.between("audit.segment_age", c.Audit.SegmentAge, 100*time.Millisecond, time.Hour)
	k.between("audit.append_timeout", c.Audit.AppendTimeout, 10*time.Millisecond, time.Minute)
	k.require(c.Cache.Entries >= 1, "cache.entries must be at least 1")
	k.between("cache.refresh_after", c.Cache.RefreshAfter, time.Second, c.Cache.MaxStaleness)
	k.between("cache.max_staleness", c.Cache.MaxStaleness, time.Second, 24*time.Hour)
	c.validateSources(k)
	c.validateLimits(k)
	k.require(slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level), "log.level must be debug, info, warn or error")
	k.require(slices.Contains([]string{"json", "text"}, c.Log.Format), "log.format must be json or text")
	return errors.Join(k.problems...)
}

func (c *checker) between(name string, d, low, high time.Duration) {
	c.require(d >= low && d <= high, "%s must be between %v and %v", name, low, high)
}

func (c *Config) validateListen(k *checker) {
	k.require(c.Listen.GRPC != "" || c.Listen.REST != "", "listen.grpc or listen.rest is required")
	addresses := []struct{ name, value string }{
		{"grpc", c.Listen.GRPC}, {"rest", c.Listen.REST}, {"control", c.Listen.Control}, {"ops", c.Listen.Ops},
	}
	seen := map[string]string{}
	for _, a := range addresses {
		if a.value == "" {
			continue
		}
		_, port, err := net.SplitHostPort(a.value)
		k.require(err == nil, "listen.%s must be host:port", a.name)
		if other := seen[a.value]; other != "" && port != "0" {
			k.require(false, "listen.%s and listen.%s are the same", other, a.name)
		}
		seen[a.value] = a.name
	}
	if c.Listen.Ops != "" {
		host, _, _ := net.SplitHostPort(c.Listen.Ops)
		k.require(isLoopback(host),
			"listen.ops must be a loopback address: it asks for no credential")
	}
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func (c *Config) validateTrust(k *checker) {
	k.require(len(c.Trust.Domains) > 0, "trust.domains needs at least one domain")
	seen := map[string]bool{}
	for i, d := range c.Trust.Domains {
		td, err := spiffeid.TrustDomainFromString(d.Name)
		k.require(err == nil && td.Name() == d.Name, "trust.domains[%d].name is not a trust domain name", i)
		k.require(d.Bundle != "", "trust.domains[%d].bundle is required", i)
		k.require(!seen[d.Name], "trust.domains[%d].name occurs twice", i)
		seen[d.Name] = true
	}
	k.require(c.Listen.Control == "" || c.Trust.Operators != "", "trust.operators is required with listen.control")
}

func (c *Config) validateKEK(k *checker) {
	names := map[string]bool{}
	add := func(list string, i int, name string) {
		k.require(keys.ValidID(name), "kek.%s[%d].name must have 1 to 63 of a-z, 0-9 and -, beginning with a letter", list, i)
		k.require(!names[name], "kek.%s[%d].name occurs twice", list, i)
		names[name] = true
	}
	for i, l := range c.KEK.Local {
		add("local", i, l.Name)
		k.require(l.File != "", "kek.local[%d].file is required", i)
		k.require((l.PassphraseFile == "") != (l.CredentialFile == ""),
			"kek.local[%d] needs one of passphrase_file and credential_file", i)
	}
	for i, a := range c.KEK.AWSKMS {
		add("awskms", i, a.Name)
		k.require(strings.HasPrefix(a.ARN, "arn:") && strings.Contains(a.ARN, ":key/"), "kek.awskms[%d].arn must be the ARN of a key", i)
		sources := 0
		for _, set := range []bool{a.CredentialsFile != "", a.WebIdentity != nil, a.InstanceRole} {
			if set {
				sources++
			}
		}
		k.require(sources == 1, "kek.awskms[%d] needs one of credentials_file, web_identity and instance_role", i)
		k.require(a.WebIdentity == nil || a.WebIdentity.RoleARN != "" && a.WebIdentity.TokenFile != "",
			"kek.awskms[%d].web_identity needs role_arn and token_file", i)
		k.require(a.Endpoint == "" || strings.HasPrefix(a.Endpoint, "https://") || strings.HasPrefix(a.Endpoint, "http://127.0.0.1:"),
			"kek.awskms[%d].endpoint must be https, or http on 127.0.0.1", i)
	}
	k.require(names[c.KEK.Current], "kek.current must be the name of a key under kek.local or kek.awskms")
}

func (c *Config) validateLimits(k *checker) {
	l := c.Limits
	k.require(l.MaxRequestBytes >= 1<<10 && l.MaxRequestBytes <= 64<<20, "limits.max_request_bytes must be between 1024 and 67108864")
	k.require(l.MaxConnections >= 1, "limits.max_connections must be at least 1")
	k.require(l.MaxStreams >= 1 && l.MaxStreams <= 1<<20, "limits.max_streams must be between 1 and 1048576")
	k.require(l.MaxInFlight >= 1, "limits.max_in_flight must be at least 1")
	k.require(l.KMSPerSecond > 0 && l.KMSPerTenantPerSecond > 0, "limits.kms_per_second and kms_per_tenant_per_second must be above 0")
	k.between("limits.max_connection_age", l.MaxConnectionAge, time.Second, 24*time.Hour)
	k.between("limits.request_timeout", l.RequestTimeout, time.Second, 10*time.Minute)
	k.between("limits.drain_timeout", l.DrainTimeout, 0, 10*time.Minute)
}
