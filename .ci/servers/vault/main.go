// Command vault-server runs a real Vault for tests: the core, the HTTP interface and
// the plugins of one released version, without the command line around them, which
// cannot be built outside its repository. It initialises and unseals itself.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/audit"
	"github.com/hashicorp/vault/command/server"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

const (
	unsealKeyFile = "unseal.key"
	rootTokenFile = "root.token"
	storageFolder = "storage"
)

// options are the flags.
type options struct {
	listen, dir, storage   string
	tlsCert, tlsKey, tlsCA string
	sealed, verbose        bool
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", "127.0.0.1:0", "address to serve on; port 0 is a free one")
	flag.StringVar(&o.dir, "dir", "", "folder for "+unsealKeyFile+", "+rootTokenFile+" and the storage")
	flag.StringVar(&o.storage, "storage", "inmem", "inmem, or file, which lasts")
	flag.StringVar(&o.tlsCert, "tls-cert", "", "certificate of the server, PEM; plain HTTP without")
	flag.StringVar(&o.tlsKey, "tls-key", "", "its key, PEM")
	flag.StringVar(&o.tlsCA, "tls-client-ca", "", "authorities named to clients when asking for their certificate, PEM")
	flag.BoolVar(&o.sealed, "sealed", false, "do not unseal")
	flag.BoolVar(&o.verbose, "verbose", false, "log everything, not only warnings")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "vault-server:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if o.dir == "" || flag.NArg() != 0 {
		return errors.New("want --dir and no arguments")
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	listener, scheme, err := listen(o)
	if err != nil {
		return err
	}
	address := scheme + "://" + listener.Addr().String()
	core, err := newCore(o, address)
	if err != nil {
		return err
	}
	if err := open(ctx, core, o); err != nil {
		return err
	}
	// The listener configuration is dereferenced by the handlers, empty or not.
	srv := &http.Server{
		Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
			Core:           core,
			ListenerConfig: &configutil.Listener{MaxRequestDuration: vault.DefaultMaxRequestDuration},
		}),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       5 * time.Minute,
		ErrorLog:          core.Logger().StandardLogger(nil),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(listener) }()
	fmt.Fprintln(os.Stdout, "ready", address)
	select {
	case <-ctx.Done():
	case err := <-failed:
		return err
	}
	return errors.Join(srv.Close(), core.Shutdown())
}

// newCore makes a core as the server command does, with fewer choices.
func newCore(o options, address string) (*vault.Core, error) {
	level := hclog.Warn
	if o.verbose {
		level = hclog.Trace
	}
	logger := hclog.New(&hclog.LoggerOptions{Name: "vault", Level: level, Output: os.Stderr})
	storage, err := newStorage(o, logger)
	if err != nil {
		return nil, err
	}
	return vault.NewCore(&vault.CoreConfig{
		RawConfig:          &server.Config{SharedConfig: &configutil.SharedConfig{}},
		Physical:           storage,
		StorageType:        o.storage,
		RedirectAddr:       address,
		Logger:             logger,
		LogLevel:           level.String(),
		LogicalBackends:    secrets,
		CredentialBackends: logins,
		AuditBackends:      map[string]audit.Factory{audit.TypeFile: audit.NewFileBackend},
		BuiltinRegistry:    registry{},
		EnableRaw:          true,
		// Nothing here is worth locking memory for, which needs privileges.
		DisableMlock: true,
	})
}

func newStorage(o options, logger hclog.Logger) (physical.Backend, error) {
	switch o.storage {
	case "inmem":
		return inmem.NewInmem(nil, logger)
	case "file":
		return file.NewFileBackend(map[string]string{"path": filepath.Join(o.dir, storageFolder)}, logger)
	default:
		return nil, fmt.Errorf("unknown storage %q", o.storage)
	}
}

// open initialises a new core, and unseals it unless it is to stay sealed.
func open(ctx context.Context, core *vault.Core, o options) error {
	initialised, err := core.Initialized(ctx)
	if err != nil {
		return err
	}
	if !initialised {
		if err := initialise(ctx, core, o.dir); err != nil {
			return err
		}
	}
	if o.sealed {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(o.dir, unsealKeyFile))
	if err != nil {
		return err
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("%s: %w", unsealKeyFile, err)
	}
	// Without a backend for high availability, an unsealed core is the active one.
	unsealed, err := core.Unseal(key)
	if err == nil && !unsealed {
		err = errors.New("still sealed after its only key")
	}
	return err
}

// initialise makes one unseal key and a root token, and keeps both in dir.
func initialise(ctx context.Context, core *vault.Core, dir string) error {
	made, err := core.Initialize(ctx, &vault.InitParams{
		BarrierConfig:  &vault.SealConfig{SecretShares: 1, SecretThreshold: 1},
		RecoveryConfig: &vault.SealConfig{},
	})
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, unsealKeyFile), []byte(hex.EncodeToString(made.SecretShares[0])), 0o600),
		os.WriteFile(filepath.Join(dir, rootTokenFile), []byte(made.RootToken), 0o600),
	)
}

// listen opens the port, with TLS if a certificate was given. Client certificates are
// asked for and not verified, as a server with its default settings does: the cert
// backend verifies them.
func listen(o options) (net.Listener, string, error) {
	listener, err := net.Listen("tcp", o.listen)
	if err != nil || o.tlsCert == "" {
		return listener, "http", err
	}
	certificate, err := tls.LoadX509KeyPair(o.tlsCert, o.tlsKey)
	if err != nil {
		return nil, "", err
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{certificate},
		ClientAuth:   tls.RequestClientCert,
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2", "http/1.1"},
	}
	if o.tlsCA != "" {
		pem, err := os.ReadFile(o.tlsCA)
		if err != nil {
			return nil, "", err
		}
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, "", fmt.Errorf("%s: no certificate", o.tlsCA)
		}
	}
	return tls.NewListener(listener, config), "https", nil
}
