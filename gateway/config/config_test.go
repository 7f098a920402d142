package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/config"
)

// good is a whole configuration. Tests change one line of it.
const good = `deployment: acme
environment: production
listen:
  grpc: 0.0.0.0:8441
  control: 0.0.0.0:8443
  ops: 127.0.0.1:8444
tls:
  certificate: server.pem
  key: /etc/sallyport/server.key
trust:
  domains:
    - name: example.org
      bundle: example.pem
  operators: operators.pem
store:
  sqlite: store.db
kek:
  current: local
  local:
    - name: local
      file: kek
      passphrase_file: passphrase
audit:
  directory: audit
  origin: example.org/audit
  key: audit.key
  pseudonym_key: pseudonym
`

const dir = "/srv/sallyport"

func parse(text string) (config.Config, error) { return config.Parse([]byte(text), dir) }

func TestGoodConfiguration(t *testing.T) {
	c, err := parse(good)
	if err != nil {
		t.Fatal(err)
	}
	for key, path := range map[string]string{
		"tls.certificate": dir + "/server.pem", "tls.key": "/etc/sallyport/server.key", "store.sqlite": dir + "/store.db",
		"trust.domains[0].bundle": dir + "/example.pem", "trust.operators": dir + "/operators.pem",
		"audit.directory": dir + "/audit", "audit.key": dir + "/audit.key", "audit.pseudonym_key": dir + "/pseudonym",
		"kek.local[0].file": dir + "/kek", "kek.local[0].passphrase_file": dir + "/passphrase",
	} {
		found := false
		for _, f := range c.Files() {
			found = found || f.Key == key && f.Path == path
		}
		if !found {
			t.Errorf("%s is not %s among %v", key, path, c.Files())
		}
	}
}

// Where the file is silent, the documented defaults apply; where it speaks, they do
// not, and its neighbours keep theirs.
func TestDefaults(t *testing.T) {
	c, err := parse(good + "limits:\n  max_streams: 7\n")
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.Limits.MaxStreams = 7
	if c.Limits != want.Limits || c.Cache != want.Cache || c.Log != want.Log {
		t.Errorf("got %+v %+v %+v", c.Limits, c.Cache, c.Log)
	}
	if c.Audit.SegmentAge != 5*time.Second || c.Limits.MaxRequestBytes != 1<<20 || c.Listen.REST != "" {
		t.Errorf("got %+v %+v", c.Audit, c.Listen)
	}
}

// What the file may not be, and what the refusal says. The line is the line of the
// mistake.
func TestStrictness(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"unknown key":                      {strings.Replace(good, "  sqlite:", "  sqlight: x\n  sqlite:", 1), []string{"line 16", "sqlight"}},
		"unknown key in a list":            {strings.Replace(good, "      file:", "      flie: x\n      file:", 1), []string{"line 21", "flie"}},
		"unknown key at the top":           {good + "extra: 1\n", []string{"line 28", "extra"}},
		"key in another case":              {strings.Replace(good, "deployment:", "Deployment:", 1), []string{"line 1", "Deployment"}},
		"key twice":                        {strings.Replace(good, "environment:", "deployment: b\nenvironment:", 1), []string{"line 2", "deployment"}},
		"wrong type":                       {good + "limits:\n  max_streams: many\n", []string{"line 29"}},
		"duration without unit":            {good + "cache:\n  max_staleness: soon\n", []string{"line 29"}},
		"two documents":                    {good + "---\ndeployment: b\n", []string{"more than one document"}},
		"two documents, the second broken": {good + "---\n\t{\n", []string{"config: "}},
		"not YAML":                         {"\t{", []string{"config: "}},
		"a list":                           {"- a\n", []string{"line 1"}},
		"two unknown keys":                 {good + "one: 1\ntwo: 2\n", []string{"line 28", "one", "line 29", "two"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(test.text)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
		})
	}
}

// All problems are listed at once.
func TestEveryProblemIsListed(t *testing.T) {
	_, err := parse("")
	if err == nil {
		t.Fatal("an empty file was accepted")
	}
	for _, want := range []string{
		"deployment", "environment", "listen.grpc", "tls.certificate", "trust.domains", "store.sqlite", "kek.current",
		"audit.directory", "audit.origin", "audit.key",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not mentioned in: %v", want, err)
		}
	}
	if got := strings.Count(err.Error(), "config: "); got != 10 {
		t.Errorf("%d problems: %v", got, err)
	}
}

// Each rule refuses by itself: one change to a good configuration, one problem.
func TestEachRule(t *testing.T) {
	c, err := parse(good)
	if err != nil {
		t.Fatal(err)
	}
	aws := config.AWSKMS{Name: "aws", ARN: "arn:aws:kms:eu-north-1:1:key/x", CredentialsFile: "/c"}
	withAWS := func(change func(*config.AWSKMS)) func(*config.Config) {
		return func(c *config.Config) {
			a := aws
			change(&a)
			c.KEK.AWSKMS = []config.AWSKMS{a}
		}
	}
	withAWS(func(*config.AWSKMS) {})(&c)
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*config.Config){
		"deployment must":                     func(c *config.Config) { c.Deployment = "Acme" },
		"environment must":                    func(c *config.Config) { c.Environment = "" },
		"listen.grpc or listen.rest":          func(c *config.Config) { c.Listen.GRPC = "" },
		"listen.rest must be host:port":       func(c *config.Config) { c.Listen.REST = "8442" },
		"listen.grpc and listen.control are":  func(c *config.Config) { c.Listen.Control = c.Listen.GRPC },
		"listen.ops must be a loopback":       func(c *config.Config) { c.Listen.Ops = "0.0.0.0:8444" },
		"tls.certificate and tls.key":         func(c *config.Config) { c.TLS.Key = "" },
		"trust.domains needs":                 func(c *config.Config) { c.Trust.Domains = nil },
		"trust.domains[0].name is not":        func(c *config.Config) { c.Trust.Domains[0].Name = "Example.org" },
		"trust.domains[0].bundle is required": func(c *config.Config) { c.Trust.Domains[0].Bundle = "" },
		"trust.domains[1].name occurs twice":  func(c *config.Config) { c.Trust.Domains = append(c.Trust.Domains, c.Trust.Domains[0]) },
		"trust.operators is required":         func(c *config.Config) { c.Trust.Operators = "" },
		"store.sqlite is required":            func(c *config.Config) { c.Store.SQLite = "" },
		"kek.current must":                    func(c *config.Config) { c.KEK.Current = "other" },
		"kek.local[0].file is required":       func(c *config.Config) { c.KEK.Local[0].File = "" },
		"kek.local[0] needs one":              func(c *config.Config) { c.KEK.Local[0].CredentialFile = "/c" },
		"kek.local[1].name must": func(c *config.Config) {
			c.KEK.Local = append(c.KEK.Local, config.LocalKEK{Name: "-", File: "/f", PassphraseFile: "/p"})
		},
		"kek.awskms[0].name occurs twice":   withAWS(func(a *config.AWSKMS) { a.Name = "local" }),
		"kek.awskms[0].arn must":            withAWS(func(a *config.AWSKMS) { a.ARN = "alias/x" }),
		"kek.awskms[0] needs one":           withAWS(func(a *config.AWSKMS) { a.InstanceRole = true }),
		"kek.awskms[0].web_identity needs":  withAWS(func(a *config.AWSKMS) { a.CredentialsFile, a.WebIdentity = "", &config.WebIdentity{RoleARN: "x"} }),
		"kek.awskms[0].endpoint must":       withAWS(func(a *config.AWSKMS) { a.Endpoint = "http://kms.example.org" }),
		"audit.directory is required":       func(c *config.Config) { c.Audit.Directory = "" },
		"audit.origin must":                 func(c *config.Config) { c.Audit.Origin = "a b" },
		"audit.key and audit.pseudonym_key": func(c *config.Config) { c.Audit.PseudonymKey = "" },
		"audit.segment_age must":            func(c *config.Config) { c.Audit.SegmentAge = 0 },
		"audit.append_timeout must":         func(c *config.Config) { c.Audit.AppendTimeout = time.Hour },
		"cache.entries must":                func(c *config.Config) { c.Cache.Entries = 0 },
		"cache.refresh_after must":          func(c *config.Config) { c.Cache.RefreshAfter = c.Cache.MaxStaleness + 1 },
		"cache.max_staleness must":          func(c *config.Config) { c.Cache.MaxStaleness = 25 * time.Hour },
		"limits.max_request_bytes must":     func(c *config.Config) { c.Limits.MaxRequestBytes = 1 },
		"limits.max_connections must":       func(c *config.Config) { c.Limits.MaxConnections = 0 },
		"limits.max_streams must":           func(c *config.Config) { c.Limits.MaxStreams = 0 },
		"limits.max_in_flight must":         func(c *config.Config) { c.Limits.MaxInFlight = 0 },
		"limits.kms_per_second and":         func(c *config.Config) { c.Limits.KMSPerSecond = 0 },
		"limits.max_connection_age must":    func(c *config.Config) { c.Limits.MaxConnectionAge = 0 },
		"limits.request_timeout must":       func(c *config.Config) { c.Limits.RequestTimeout = time.Hour },
		"limits.drain_timeout must":         func(c *config.Config) { c.Limits.DrainTimeout = -1 },
		"log.level must":                    func(c *config.Config) { c.Log.Level = "loud" },
		"log.format must":                   func(c *config.Config) { c.Log.Format = "xml" },
	} {
		t.Run(want, func(t *testing.T) {
			changed, err := parse(good)
			if err != nil {
				t.Fatal(err)
			}
			change(&changed)
			err = changed.Validate()
			if err == nil || !strings.HasPrefix(err.Error(), "config: "+want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got: %v", err)
			}
		})
	}
}

func TestParseSources(t *testing.T) {
	const text = "sources: {vault: [{name: acme, app_role: {role_id: r, secret_id_file: secret-id}}]}"
	s, err := config.ParseSources([]byte(text), "/etc/acme")
	if err != nil || len(s.Vault) != 1 || s.Vault[0].AppRole.SecretIDFile != "/etc/acme/secret-id" {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{"listen: {}", text + "\n---\n" + text, "sources: ["} {
		if _, err := config.ParseSources([]byte(bad), "/"); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
