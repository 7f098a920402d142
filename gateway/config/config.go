// Package config is the configuration file as types. The comments are its manual.
//
// The file is YAML, and strict: an unknown or repeated key is refused with its
// line. Secrets are never in it; where one is needed, the file names the file
// that holds it. Relative paths are relative to the configuration file.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v4"
)

// Config is the whole file.
type Config struct {
	// Deployment and Environment are names that every key and envelope is bound to:
	// what one deployment sealed does not open in another. They cannot be changed
	// later. 1 to 63 of a-z, 0-9 and "-".
	Deployment  string `yaml:"deployment"`
	Environment string `yaml:"environment"`

	Listen Listen `yaml:"listen"`
	TLS    TLS    `yaml:"tls"`
	Trust  Trust  `yaml:"trust"`
	Store  Store  `yaml:"store"`
	KEK    KEK    `yaml:"kek"`
	Audit  Audit  `yaml:"audit"`
	Cache  Cache  `yaml:"cache"`
	// Sources are where secrets are leased from; none is needed to encrypt.
	Sources Sources `yaml:"sources"`
	Leases  Leases  `yaml:"leases"`
	Limits  Limits  `yaml:"limits"`
	Log     Log     `yaml:"log"`
}

// Listen names the addresses, as host:port. An empty one is not served; at least
// one of GRPC and REST must be there.
type Listen struct {
	GRPC    string `yaml:"grpc"`
	REST    string `yaml:"rest"`
	Control string `yaml:"control"`
	// Ops serves health and metrics without asking for a credential. Loopback only.
	Ops string `yaml:"ops"`
}

// TLS names the server's certificate chain and private key, both PEM. They are read
// again when they change.
type TLS struct {
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

// Trust names who vouches for callers. The files are read again when they change.
type Trust struct {
	// Domains are the SPIFFE trust domains whose workloads may be registered.
	Domains []TrustDomain `yaml:"domains"`
	// Operators is a PEM bundle of the authorities that vouch for people.
	Operators string `yaml:"operators"`
}

// TrustDomain is one trust domain and the PEM bundle of its authorities.
type TrustDomain struct {
	Name   string `yaml:"name"`
	Bundle string `yaml:"bundle"`
}

// Store is where keyrings, workloads and policy are kept.
type Store struct {
	// SQLite is the path of the database. "sallyportd init" makes it.
	SQLite string `yaml:"sqlite"`
}

// KEK names the key-encryption keys. New versions are wrapped by Current; the
// others open what they wrapped before.
type KEK struct {
	// Current is the name of one of the keys below.
	Current string     `yaml:"current"`
	Local   []LocalKEK `yaml:"local"`
	AWSKMS  []AWSKMS   `yaml:"awskms"`
}

// LocalKEK is a key file. Exactly one of PassphraseFile and CredentialFile seals
// it.
type LocalKEK struct {
	Name string `yaml:"name"`
	// File is the sealed key. "sallyportd init" makes it.
	File string `yaml:"file"`
	// PassphraseFile holds a passphrase.
	PassphraseFile string `yaml:"passphrase_file"`
	// CredentialFile holds 32 or more random bytes, such as a systemd credential.
	CredentialFile string `yaml:"credential_file"`
}

// AWSKMS is a symmetric KMS key. Exactly one of CredentialsFile, WebIdentity and
// InstanceRole says who calls it.
type AWSKMS struct {
	Name string `yaml:"name"`
	// ARN is the full ARN of the key; aliases are refused.
	ARN string `yaml:"arn"`
	// Endpoint overrides the service's own, for VPC endpoints and tests.
	Endpoint string `yaml:"endpoint"`
	// CredentialsFile is an AWS shared credentials file, and Profile its section;
	// "default" if empty.
	CredentialsFile string `yaml:"credentials_file"`
	Profile         string `yaml:"profile"`
	// WebIdentity exchanges a token for a role, as on EKS.
	WebIdentity *WebIdentity `yaml:"web_identity"`
	// InstanceRole asks the EC2 instance metadata service.
	InstanceRole bool `yaml:"instance_role"`
}

// WebIdentity is the role to assume, and the file that holds the token.
type WebIdentity struct {
	RoleARN   string `yaml:"role_arn"`
	TokenFile string `yaml:"token_file"`
	// Endpoint overrides that of the token service.
	Endpoint string `yaml:"endpoint"`
}

// Audit is where the trail is kept.
type Audit struct {
	Directory string `yaml:"directory"`
	// Origin names the log, and is part of its keys and checkpoints.
	Origin string `yaml:"origin"`
	// Key is the log's private key, and PseudonymKey the key of the hashes that stand
	// for context values. "sallyportd init" makes both.
	Key          string `yaml:"key"`
	PseudonymKey string `yaml:"pseudonym_key"`
	// SegmentAge is how long records wait before they are sealed into the
	// transparency log. Records are durable before that.
	SegmentAge time.Duration `yaml:"segment_age"`
	// AppendTimeout is how long a call waits for its record before it fails.
	AppendTimeout time.Duration `yaml:"append_timeout"`
}

// Cache bounds the opened keys that are held in memory.
type Cache struct {
	Entries int `yaml:"entries"`
	// RefreshAfter is the age from which a key in use is opened anew.
	RefreshAfter time.Duration `yaml:"refresh_after"`
	// MaxStaleness is how long a key serves while the KMS or the store cannot be
	// reached, from when it was opened.
	MaxStaleness time.Duration `yaml:"max_staleness"`
}

// Limits bound what callers can ask for.
type Limits struct {
	MaxRequestBytes  int           `yaml:"max_request_bytes"`
	MaxConnections   int           `yaml:"max_connections"`
	MaxStreams       int           `yaml:"max_streams"`
	MaxInFlight      int           `yaml:"max_in_flight"`
	MaxConnectionAge time.Duration `yaml:"max_connection_age"`
	RequestTimeout   time.Duration `yaml:"request_timeout"`
	// KMSPerSecond bounds the calls to all KMSs, and KMSPerTenantPerSecond those of
	// one tenant.
	KMSPerSecond          float64 `yaml:"kms_per_second"`
	KMSPerTenantPerSecond float64 `yaml:"kms_per_tenant_per_second"`
	// DrainTimeout is how long calls may take to finish at shutdown.
	DrainTimeout time.Duration `yaml:"drain_timeout"`
}

// Log is the gateway's own log, on standard error. It holds no payloads.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // json, text
}

// Default holds what applies where the file is silent.
func Default() Config {
	return Config{
		Audit: Audit{SegmentAge: 5 * time.Second, AppendTimeout: 2 * time.Second},
		Cache: Cache{Entries: 10_000, RefreshAfter: 5 * time.Minute, MaxStaleness: 15 * time.Minute},
		Leases: Leases{
			IssueTimeout: 15 * time.Second, Margin: time.Minute, Concurrency: 16, Waiting: 10_000, Patience: 20 * time.Second,
			PerSecond: 10, Burst: 100, Keep: 24 * time.Hour,
		},
		Limits: Limits{
			MaxRequestBytes: 1 << 20, MaxConnections: 10_000, MaxStreams: 1000, MaxInFlight: 10_000,
			MaxConnectionAge: 10 * time.Minute, RequestTimeout: 30 * time.Second,
			KMSPerSecond: 500, KMSPerTenantPerSecond: 100, DrainTimeout: 20 * time.Second,
		},
		Log: Log{Level: "info", Format: "json"},
	}
}

// Parse decodes a file. It refuses what it does not know, and lists every problem
// that it finds, by line where there is one. Relative paths are resolved against
// dir.
func Parse(data []byte, dir string) (Config, error) {
	c := Default()
	if err := decode(data, &c); err != nil {
		return Config{}, err
	}
	c.resolve(dir)
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// ParseSources decodes a file that holds sources and nothing else, as Parse does, and
// leaves their validation to that of the whole.
func ParseSources(data []byte, dir string) (Sources, error) {
	var file struct {
		Sources Sources `yaml:"sources"`
	}
	if err := decode(data, &file); err != nil {
		return Sources{}, err
	}
	resolve(dir, file.Sources.paths())
	return file.Sources, nil
}

func decode(data []byte, into any) error {
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("config: %w", err)
	}
	var more any
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return errors.New("config: the file holds more than one document")
	}
	return nil
}

func (c *Config) resolve(dir string) {
	paths := []*string{
		&c.TLS.Certificate, &c.TLS.Key, &c.Trust.Operators, &c.Store.SQLite,
		&c.Audit.Directory, &c.Audit.Key, &c.Audit.PseudonymKey,
	}
	for i := range c.Trust.Domains {
		paths = append(paths, &c.Trust.Domains[i].Bundle)
	}
	for i := range c.KEK.Local {
		k := &c.KEK.Local[i]
		paths = append(paths, &k.File, &k.PassphraseFile, &k.CredentialFile)
	}
	for i := range c.KEK.AWSKMS {
		paths = append(paths, &c.KEK.AWSKMS[i].CredentialsFile)
		if w := c.KEK.AWSKMS[i].WebIdentity; w != nil {
			paths = append(paths, &w.TokenFile)
		}
	}
	resolve(dir, append(paths, c.Sources.paths()...))
}

func resolve(dir string, paths []*string) {
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

// File is a file that a configuration names.
type File struct {
	Key    string // where the configuration names it
	Path   string
	MadeBy string // a remark for when it is missing
}

// Files lists the files that must be there to serve.
func (c *Config) Files() []File {
	const byInit = `; "sallyportd init" makes it`
	files := []File{
		{"tls.certificate", c.TLS.Certificate, ""},
		{"tls.key", c.TLS.Key, ""},
		{"store.sqlite", c.Store.SQLite, byInit},
		{"audit.directory", c.Audit.Directory, byInit},
		{"audit.key", c.Audit.Key, byInit},
		{"audit.pseudonym_key", c.Audit.PseudonymKey, byInit},
	}
	for i, d := range c.Trust.Domains {
		files = append(files, File{fmt.Sprintf("trust.domains[%d].bundle", i), d.Bundle, ""})
	}
	optional := func(key, path, madeBy string) {
		if path != "" {
			files = append(files, File{key, path, madeBy})
		}
	}
	optional("trust.operators", c.Trust.Operators, "")
	for i, k := range c.KEK.Local {
		optional(fmt.Sprintf("kek.local[%d].file", i), k.File, byInit)
		optional(fmt.Sprintf("kek.local[%d].passphrase_file", i), k.PassphraseFile, "")
		optional(fmt.Sprintf("kek.local[%d].credential_file", i), k.CredentialFile, "")
	}
	for i, k := range c.KEK.AWSKMS {
		optional(fmt.Sprintf("kek.awskms[%d].credentials_file", i), k.CredentialsFile, "")
		if k.WebIdentity != nil {
			optional(fmt.Sprintf("kek.awskms[%d].web_identity.token_file", i), k.WebIdentity.TokenFile, "")
		}
	}
	return append(files, c.Sources.files()...)
}
