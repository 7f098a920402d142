package host_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/gateway/development"
	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/gateway/policy"
)

// settings is the configuration of a gateway in a directory, whose certificates are
// there and the rest is not.
func settings(t *testing.T) config.Config {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"ca", "workloads", "operators"} {
		a, err := development.NewAuthority(dir, name)
		must(t, err)
		if name == "ca" {
			must(t, a.Issue(at("server.pem"), at("server.key"), development.Leaf{Server: true}))
		}
	}
	must(t, os.WriteFile(at("credential"), []byte(rand.Text()+rand.Text()), 0o600))
	c := config.Default()
	c.Deployment, c.Environment = "acme", "test"
	c.Listen = config.Listen{GRPC: "127.0.0.1:0", Control: "127.0.0.1:0"}
	c.TLS = config.TLS{Certificate: at("server.pem"), Key: at("server.key")}
	c.Trust = config.Trust{Domains: []config.TrustDomain{{Name: "example.org", Bundle: at("workloads.pem")}}, Operators: at("operators.pem")}
	c.Store.SQLite = at("store.db")
	c.KEK = config.KEK{Current: "local", Local: []config.LocalKEK{{Name: "local", File: at("kek"), CredentialFile: at("credential")}}}
	c.Audit.Directory, c.Audit.Origin = at("audit"), "example.org/audit"
	c.Audit.Key, c.Audit.PseudonymKey = at("audit.key"), at("pseudonym.key")
	must(t, c.Validate())
	return c
}

var options = host.Options{Logger: slog.New(slog.DiscardHandler)}

func open(t *testing.T, c config.Config) error {
	t.Helper()
	h, err := host.Open(t.Context(), c, options)
	if err != nil {
		return err
	}
	return h.Close()
}

// Init makes what a gateway starts from, for its owner's eyes; after it the gateway
// opens.
func TestInit(t *testing.T) {
	c := settings(t)
	must(t, host.Init(t.Context(), c, []policy.File{{Name: "a.cedar", Content: development.Policy}}))
	for _, path := range []string{c.Store.SQLite, c.KEK.Local[0].File, c.Audit.Key, c.Audit.PseudonymKey} {
		info, err := os.Stat(path)
		must(t, err)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is %v", filepath.Base(path), info.Mode())
		}
	}
	must(t, open(t, c))
	must(t, open(t, c)) // it lets go of everything when it closes
}

// A second Init is refused, and changes nothing.
func TestSecondInit(t *testing.T) {
	c := settings(t)
	must(t, host.Init(t.Context(), c, nil))
	before := contents(t, c)
	err := host.Init(t.Context(), c, nil)
	if err == nil || !strings.Contains(err.Error(), fs.ErrExist.Error()) {
		t.Errorf("got: %v", err)
	}
	for path, was := range before {
		if now := contents(t, c)[path]; now != was {
			t.Errorf("%s changed", path)
		}
	}
	must(t, open(t, c))
}

func contents(t *testing.T, c config.Config) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, path := range []string{c.Store.SQLite, c.KEK.Local[0].File, c.Audit.Key, c.Audit.PseudonymKey} {
		data, err := os.ReadFile(path)
		must(t, err)
		out[path] = string(data)
	}
	return out
}

// An Init that was cut short before its end is completed by the next one, with the
// keys that the first had made.
func TestInitCompletesWhatACrashLeft(t *testing.T) {
	c := settings(t)
	must(t, host.Init(t.Context(), c, nil))
	before := contents(t, c)
	must(t, os.Remove(c.Store.SQLite)) // which is made last
	must(t, host.Init(t.Context(), c, nil))
	after := contents(t, c)
	for _, path := range []string{c.KEK.Local[0].File, c.Audit.Key, c.Audit.PseudonymKey} {
		if before[path] != after[path] {
			t.Errorf("%s was made anew", path)
		}
	}
	must(t, open(t, c))
}

// Opening makes nothing: whatever is missing is an error that names the setting,
// and the file is not there afterwards either.
func TestOpenMakesNothing(t *testing.T) {
	for setting, path := range map[string]func(*config.Config) string{
		"store.sqlite":         func(c *config.Config) string { return c.Store.SQLite },
		"kek.local":            func(c *config.Config) string { return c.KEK.Local[0].File },
		"kek.local local":      func(c *config.Config) string { return c.KEK.Local[0].CredentialFile },
		"audit.directory":      func(c *config.Config) string { return c.Audit.Directory },
		"audit.key":            func(c *config.Config) string { return c.Audit.Key },
		"audit.pseudonym_key":  func(c *config.Config) string { return c.Audit.PseudonymKey },
		"server certificate":   func(c *config.Config) string { return c.TLS.Certificate },
		"server certificate: ": func(c *config.Config) string { return c.TLS.Key },
		"trust bundles":        func(c *config.Config) string { return c.Trust.Domains[0].Bundle },
		"trust bundles: ":      func(c *config.Config) string { return c.Trust.Operators },
	} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			c := settings(t)
			must(t, host.Init(t.Context(), c, nil))
			missing := path(&c)
			must(t, os.RemoveAll(missing))
			if err := open(t, c); err == nil || !strings.HasPrefix(err.Error(), setting) {
				t.Errorf("got: %v", err)
			}
			if _, err := os.Lstat(missing); err == nil {
				t.Error("it was made")
			}
		})
	}
}

// A gateway that has its store already gets an authority that its configuration names
// since, and keeps the one that it has.
func TestAuthoritiesAreAdded(t *testing.T) {
	c := settings(t)
	must(t, host.Init(t.Context(), c, nil))
	path := filepath.Join(filepath.Dir(c.Store.SQLite), "ca", "local.pem")
	c.Sources.LocalCA = []config.LocalCA{{Name: "local", File: path}}
	if err := open(t, c); err == nil || !strings.HasPrefix(err.Error(), "sources.local_ca local") {
		t.Errorf("an authority that is missing: %v", err)
	}
	must(t, host.InitAuthorities(t.Context(), c))
	must(t, open(t, c))
	before, err := os.ReadFile(path)
	must(t, err)
	must(t, host.InitAuthorities(t.Context(), c))
	after, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(before, after) {
		t.Error("the authority was made anew")
	}
}

// Before anything was initialized, nothing opens.
func TestOpenBeforeInit(t *testing.T) {
	c := settings(t)
	if err := open(t, c); err == nil || !strings.HasPrefix(err.Error(), "store.sqlite") {
		t.Errorf("got: %v", err)
	}
}

// Two gateways do not share a store or a log: the second is refused while the first
// is open, and not after.
func TestSecondGateway(t *testing.T) {
	c := settings(t)
	must(t, host.Init(t.Context(), c, nil))
	first, err := host.Open(t.Context(), c, options)
	must(t, err)
	if err := open(t, c); err == nil {
		t.Error("a second gateway opened beside the first")
	}
	must(t, first.Close())
	must(t, open(t, c))
}

// The key of another log does not open this one, and a KEK needs its own credential.
func TestOpenWithForeignKeys(t *testing.T) {
	c, other := settings(t), settings(t)
	must(t, host.Init(t.Context(), c, nil))
	must(t, host.Init(t.Context(), other, nil))

	foreign := c
	foreign.Audit.Key = other.Audit.Key
	if err := open(t, foreign); err == nil || !strings.HasPrefix(err.Error(), "audit.directory") {
		t.Errorf("another log's key: %v", err)
	}
	renamed := c
	renamed.Audit.Origin = "example.org/other"
	if err := open(t, renamed); err == nil || !strings.HasPrefix(err.Error(), "audit.key") {
		t.Errorf("another origin: %v", err)
	}
	must(t, os.WriteFile(c.KEK.Local[0].CredentialFile, []byte(rand.Text()+rand.Text()), 0o600))
	if err := open(t, c); err == nil || !strings.HasPrefix(err.Error(), "kek.local") {
		t.Errorf("another credential: %v", err)
	}
}

// A failure on the way lets go of what was opened before it: of the addresses too.
func TestOpenLetsGo(t *testing.T) {
	c := settings(t)
	must(t, host.Init(t.Context(), c, nil))
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	taken := c
	taken.Listen.Control = l.Addr().String()
	if err := open(t, taken); err == nil || !strings.HasPrefix(err.Error(), "listen.control") {
		t.Errorf("got: %v", err)
	}
	must(t, l.Close())
	must(t, open(t, taken))
}

// Serve ends without an error when its context does, and has closed everything.
func TestServeEnds(t *testing.T) {
	c := settings(t)
	must(t, host.Init(t.Context(), c, nil))
	h, err := host.Open(t.Context(), c, options)
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- h.Serve(ctx) }()
	conn, err := net.DialTimeout("tcp", h.Addresses().GRPC, 10*time.Second)
	must(t, err)
	must(t, conn.Close())
	stop()
	must(t, <-served)
	must(t, open(t, c))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
