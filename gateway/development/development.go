// Package development makes everything that a gateway on one machine needs, under
// one directory, and starts it on loopback. It makes credentials by itself, and
// for that reason nothing that is released imports it: the development command
// and gatewaytest do.
package development

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"

	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/gateway/policy"
)

// TrustDomain is the trust domain of development's workloads.
const TrustDomain = "dev.sallyport"

// Names of what every development gateway has.
const (
	DemoWorkload = "spiffe://" + TrustDomain + "/demo"
	DemoKeyring  = "tenants/demo/keyrings/default"
	// DemoSecretRole is leased as a certificate of the gateway's own authority.
	DemoSecretRole = "tenants/demo/secretRoles/certificate"
	DemoSource     = "local"
)

// The authorities, by the names of their files.
const (
	serversCA   = "ca"
	workloadsCA = "workload-ca"
	operatorsCA = "operator-ca"
)

// Policy admits the demo workload to the tenant demo, and operators to the
// control plane.
const Policy = `// The policy of a development gateway.

@id("demo-workload")
permit (
  principal == Sallyport::Workload::"` + DemoWorkload + `",
  action in [Sallyport::Action::"plaintext", Sallyport::Action::"seal", Sallyport::Action::"secret"],
  resource in Sallyport::Tenant::"tenants/demo"
);

@id("operators")
permit (principal is Sallyport::Operator, action in Sallyport::Action::"control", resource);

@id("automation")
permit (principal is Sallyport::Workload, action in Sallyport::Action::"control", resource)
when { principal.automation };
`

// Config says where, and what to listen on. Empty addresses mean a free port of
// 127.0.0.1.
type Config struct {
	Dir                      string
	GRPC, REST, Control, Ops string
	Logger                   *slog.Logger
	// Change, if set, changes the gateway's configuration before it opens.
	Change func(*config.Config)
}

// Pair is a certificate and its private key, as PEM files.
type Pair struct {
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

// Endpoints is what DIR/endpoints.json holds: addresses as host:port, and absolute
// paths.
type Endpoints struct {
	GRPC     string `json:"grpc"`
	REST     string `json:"rest"`
	Control  string `json:"control"`
	Ops      string `json:"ops"`
	CA       string `json:"ca"`
	Workload Pair   `json:"workload"`
	Operator Pair   `json:"operator"`
	Audit    struct {
		Dir string `json:"dir"`
		Key string `json:"key"`
	} `json:"audit"`
}

// Gateway is a development gateway that serves.
type Gateway struct {
	Endpoints Endpoints
	// Workloads and Operators issue further certificates.
	Workloads, Operators *Authority

	stop   context.CancelFunc
	served chan error
}

// Start makes what is missing in the directory, and serves. A second Start finds
// the keys and the data of the first. Stop ends it; ctx bounds only the start.
func Start(ctx context.Context, c Config) (_ *Gateway, err error) {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	g := &Gateway{served: make(chan error, 1)}
	if err := g.credentials(dir); err != nil {
		return nil, err
	}
	settings := c.settings(dir)
	if c.Change != nil {
		c.Change(&settings)
	}
	if err := settings.Validate(); err != nil {
		return nil, err
	}
	if err := initialize(ctx, dir, settings); err != nil {
		return nil, err
	}
	h, err := host.Open(ctx, settings, host.Options{
		Logger: c.Logger, OnGRPC: func(s *grpc.Server) { reflection.Register(s) },
	})
	if err != nil {
		return nil, err
	}
	a := h.Addresses()
	g.Endpoints.GRPC, g.Endpoints.REST, g.Endpoints.Control, g.Endpoints.Ops = a.GRPC, a.REST, a.Control, a.Ops
	g.Endpoints.Audit.Dir, g.Endpoints.Audit.Key = settings.Audit.Directory, host.PublicKeyPath(settings.Audit)

	var run context.Context
	run, g.stop = context.WithCancel(context.WithoutCancel(ctx))
	go func() { g.served <- h.Serve(run) }()
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Stop())
		}
	}()
	if err := g.seed(ctx); err != nil {
		return nil, err
	}
	return g, g.Endpoints.write(filepath.Join(dir, "endpoints.json"))
}

// Stop drains the gateway and waits for its end.
func (g *Gateway) Stop() error {
	g.stop()
	return g.Wait()
}

// Wait waits until the gateway has ended: after Stop, or by a failure.
func (g *Gateway) Wait() error {
	err := <-g.served
	g.served <- err
	return err
}

// credentials makes the authorities and certificates that are missing.
func (g *Gateway) credentials(dir string) error {
	servers, err := NewAuthority(dir, serversCA)
	if err != nil {
		return err
	}
	if g.Workloads, err = NewAuthority(dir, workloadsCA); err != nil {
		return err
	}
	if g.Operators, err = NewAuthority(dir, operatorsCA); err != nil {
		return err
	}
	pair := func(name string) Pair {
		return Pair{filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")}
	}
	g.Endpoints.CA, g.Endpoints.Workload, g.Endpoints.Operator = servers.CertFile, pair("workload"), pair("operator")
	server := pair("server")
	return errors.Join(
		servers.ensure(server.Cert, server.Key, Leaf{CommonName: "localhost", Server: true}),
		g.Workloads.ensure(g.Endpoints.Workload.Cert, g.Endpoints.Workload.Key, Leaf{SPIFFEID: DemoWorkload}),
		g.Operators.ensure(g.Endpoints.Operator.Cert, g.Endpoints.Operator.Key, Leaf{CommonName: "dev-operator"}),
	)
}

// settings is the configuration of a development gateway.
func (c Config) settings(dir string) config.Config {
	orLoopback := func(address string) string {
		if address == "" {
			return "127.0.0.1:0"
		}
		return address
	}
	at := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
	s := config.Default()
	s.Deployment, s.Environment = "local", "development"
	s.Listen = config.Listen{
		GRPC: orLoopback(c.GRPC), REST: orLoopback(c.REST), Control: orLoopback(c.Control), Ops: orLoopback(c.Ops),
	}
	s.TLS = config.TLS{Certificate: at("server.pem"), Key: at("server.key")}
	s.Trust = config.Trust{
		Domains:   []config.TrustDomain{{Name: TrustDomain, Bundle: at(workloadsCA + ".pem")}},
		Operators: at(operatorsCA + ".pem"),
	}
	s.Store.SQLite = at("store.db")
	s.KEK.Current = "local"
	s.KEK.Local = []config.LocalKEK{{Name: "local", File: at("kek"), CredentialFile: at("kek.credential")}}
	s.Sources.LocalCA = []config.LocalCA{{Name: DemoSource, File: at("local-ca.pem")}}
	s.Audit.Directory, s.Audit.Origin = at("audit"), TrustDomain+"/audit"
	s.Audit.Key, s.Audit.PseudonymKey = at("audit.key"), at("audit.pseudonym-key")
	s.Audit.SegmentAge = time.Second
	s.Log.Level, s.Log.Format = "warn", "text"
	return s
}

// initialize runs the same initialization as "sallyportd init", once.
func initialize(ctx context.Context, dir string, s config.Config) error {
	if _, err := os.Stat(s.Store.SQLite); err == nil {
		return nil
	}
	credential := make([]byte, 32)
	_, _ = rand.Read(credential) // never fails (crypto/rand)
	path := filepath.Join(dir, "kek.credential")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := replace(path, credential, 0o600); err != nil {
			return err
		}
	}
	return host.Init(ctx, s, []policy.File{{Name: "development.cedar", Content: Policy}})
}

// write writes endpoints.json: the nested form, and the same values under dotted
// keys for shell scripts.
func (e Endpoints) write(path string) error {
	nested, err := json.Marshal(e)
	if err != nil {
		return err
	}
	all := map[string]any{}
	if err := json.Unmarshal(nested, &all); err != nil {
		return err
	}
	for name, value := range all {
		if group, ok := value.(map[string]any); ok {
			for field, v := range group {
				all[fmt.Sprintf("%s.%s", name, field)] = v
			}
		}
	}
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return replace(path, append(data, '\n'), 0o600)
}
