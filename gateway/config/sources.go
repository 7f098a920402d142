package config

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/sallyport/sallyport/keys"
)

// Sources are where secrets are leased from.
type Sources struct {
	LocalCA []LocalCA `yaml:"local_ca"`
	Vault   []Vault   `yaml:"vault"`
}

// LocalCA is the gateway's own certificate authority.
type LocalCA struct {
	Name string `yaml:"name"`
	// File holds the authority's certificate, and its private key wrapped by the
	// current KEK. "sallyportd init" makes it.
	File string `yaml:"file"`
}

// Vault is a Vault server. Exactly one of AppRole, Certificate, Kubernetes and JWT
// says how the gateway signs in; docs/operations/source-vault.md says what Vault must
// allow it.
type Vault struct {
	Name string `yaml:"name"`
	// Address is https://host:port; http only on loopback.
	Address string `yaml:"address"`
	// CAFile is a PEM bundle of the authorities that vouch for the server; those of the
	// system if empty. ServerName overrides the name in the address.
	CAFile     string `yaml:"ca_file"`
	ServerName string `yaml:"server_name"`
	Namespace  string `yaml:"namespace"`
	// Timeout bounds each call.
	Timeout time.Duration `yaml:"timeout"`
	// RequestLimit is Vault's max_request_duration: how long it works on a call at most.
	// What a crash interrupts is ended only after that. 90s, Vault's default, if empty.
	RequestLimit time.Duration `yaml:"request_limit"`
	// TokenRole is the role of auth/token that child tokens are made through, and
	// PolicyPrefix begins the names of their policies; "sallyport" if empty.
	TokenRole    string `yaml:"token_role"`
	PolicyPrefix string `yaml:"policy_prefix"`

	AppRole     *VaultAppRole     `yaml:"app_role"`
	Certificate *VaultCertificate `yaml:"certificate"`
	Kubernetes  *VaultToken       `yaml:"kubernetes"`
	JWT         *VaultToken       `yaml:"jwt"`
}

// VaultAppRole signs in by AppRole.
type VaultAppRole struct {
	// Mount is where the method is mounted; "approle" if empty.
	Mount  string `yaml:"mount"`
	RoleID string `yaml:"role_id"`
	// SecretIDFile holds the secret id, or if Wrapped a token that unwraps it, once.
	SecretIDFile string `yaml:"secret_id_file"`
	Wrapped      bool   `yaml:"wrapped"`
}

// VaultCertificate signs in by a client certificate.
type VaultCertificate struct {
	Mount string `yaml:"mount"` // "cert" if empty
	Role  string `yaml:"role"`
	// Certificate and Key are PEM files.
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

// VaultToken signs in by a token that somebody else keeps fresh in a file: a
// Kubernetes service account's, or any JWT.
type VaultToken struct {
	Mount     string `yaml:"mount"` // "kubernetes" or "jwt" if empty
	Role      string `yaml:"role"`
	TokenFile string `yaml:"token_file"`
}

// Leases bound what is asked of sources.
type Leases struct {
	// IssueTimeout is how long issuing may take once it has begun.
	IssueTimeout time.Duration `yaml:"issue_timeout"`
	// Margin is how long after its stated end a credential may go on until its end is
	// confirmed; then its lease is stuck.
	Margin time.Duration `yaml:"margin"`
	// Concurrency is how many calls go to one source at once. Waiting is how many more
	// may wait for their turn, and Patience for how long.
	Concurrency int           `yaml:"concurrency"`
	Waiting     int           `yaml:"waiting"`
	Patience    time.Duration `yaml:"patience"`
	// PerSecond is how often a workload may ask for leases and renewals, and Burst how
	// many at once.
	PerSecond float64 `yaml:"per_second"`
	Burst     int     `yaml:"burst"`
	// Keep is how long a lease that has ended still answers.
	Keep time.Duration `yaml:"keep"`
}

// paths are the fields that hold paths.
func (s *Sources) paths() []*string {
	var paths []*string
	for i := range s.LocalCA {
		paths = append(paths, &s.LocalCA[i].File)
	}
	for i := range s.Vault {
		v := &s.Vault[i]
		paths = append(paths, &v.CAFile)
		if a := v.AppRole; a != nil {
			paths = append(paths, &a.SecretIDFile)
		}
		if a := v.Certificate; a != nil {
			paths = append(paths, &a.Certificate, &a.Key)
		}
		for _, a := range []*VaultToken{v.Kubernetes, v.JWT} {
			if a != nil {
				paths = append(paths, &a.TokenFile)
			}
		}
	}
	return paths
}

// files lists the files that must be there to serve.
func (s *Sources) files() []File {
	var files []File
	add := func(key, path, madeBy string) {
		if path != "" {
			files = append(files, File{key, path, madeBy})
		}
	}
	for i, l := range s.LocalCA {
		add(fmt.Sprintf("sources.local_ca[%d].file", i), l.File, `; "sallyportd init" makes it`)
	}
	for i, v := range s.Vault {
		at := fmt.Sprintf("sources.vault[%d].", i)
		add(at+"ca_file", v.CAFile, "")
		if a := v.AppRole; a != nil {
			add(at+"app_role.secret_id_file", a.SecretIDFile, "")
		}
		if a := v.Certificate; a != nil {
			add(at+"certificate.certificate", a.Certificate, "")
			add(at+"certificate.key", a.Key, "")
		}
		if a := v.Kubernetes; a != nil {
			add(at+"kubernetes.token_file", a.TokenFile, "")
		}
		if a := v.JWT; a != nil {
			add(at+"jwt.token_file", a.TokenFile, "")
		}
	}
	return files
}

func (c *Config) validateSources(k *checker) {
	names := map[string]bool{}
	add := func(list string, i int, name string) {
		k.require(keys.ValidID(name), "sources.%s[%d].name must have 1 to 63 of a-z, 0-9 and -, beginning with a letter", list, i)
		k.require(!names[name], "sources.%s[%d].name occurs twice", list, i)
		names[name] = true
	}
	for i, l := range c.Sources.LocalCA {
		add("local_ca", i, l.Name)
		k.require(l.File != "", "sources.local_ca[%d].file is required", i)
	}
	for i, v := range c.Sources.Vault {
		add("vault", i, v.Name)
		v.validate(k, fmt.Sprintf("sources.vault[%d]", i))
	}
	l := c.Leases
	k.between("leases.issue_timeout", l.IssueTimeout, time.Second, 5*time.Minute)
	k.between("leases.margin", l.Margin, time.Second, time.Hour)
	k.require(l.Concurrency >= 1 && l.Concurrency <= 1000, "leases.concurrency must be between 1 and 1000")
	k.require(l.Waiting >= 0, "leases.waiting must be at least 0")
	k.between("leases.patience", l.Patience, 0, 10*time.Minute)
	k.require(l.PerSecond > 0 && l.Burst >= 1, "leases.per_second must be above 0 and leases.burst at least 1")
	k.between("leases.keep", l.Keep, 0, 90*24*time.Hour)
}

func (v Vault) validate(k *checker, at string) {
	u, err := url.Parse(v.Address)
	ok := err == nil && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == "" && (u.Path == "" || u.Path == "/")
	k.require(ok && (u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname())),
		"%s.address must be https://host:port, or http on loopback", at)
	k.between(at+".timeout", v.Timeout, 0, 5*time.Minute)
	k.between(at+".request_limit", v.RequestLimit, 0, 10*time.Minute)
	ways := 0
	if a := v.AppRole; a != nil {
		ways++
		k.require(a.RoleID != "" && a.SecretIDFile != "", "%s.app_role needs role_id and secret_id_file", at)
	}
	if a := v.Certificate; a != nil {
		ways++
		k.require(a.Certificate != "" && a.Key != "", "%s.certificate needs certificate and key", at)
	}
	for name, a := range map[string]*VaultToken{"kubernetes": v.Kubernetes, "jwt": v.JWT} {
		if a != nil {
			ways++
			k.require(a.Role != "" && a.TokenFile != "", "%s.%s needs role and token_file", at, name)
		}
	}
	k.require(ways == 1, "%s needs one of app_role, certificate, kubernetes and jwt", at)
	for name, value := range map[string]string{"token_role": v.TokenRole, "policy_prefix": v.PolicyPrefix} {
		k.require(value == "" || keys.ValidID(value), "%s.%s must have 1 to 63 of a-z, 0-9 and -, beginning with a letter", at, name)
	}
	k.require(!strings.ContainsAny(v.Namespace, "\r\n"), "%s.namespace must be one line", at)
}
