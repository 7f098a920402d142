package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// Vault is a running server, initialised and unsealed.
type Vault struct {
	// Address is its URL, which stays the same over Restart.
	Address string
	// RootToken may do everything.
	RootToken string
	// CACert is the file with the authority of the server's certificate; empty
	// without TLS.
	CACert string
	// ClientCA issues certificates for EnableCert; nil without TLS.
	ClientCA *Authority
	// Dir holds the state of the server.
	Dir string

	process process
	api     *api
	fail    func(string, ...any)
	stops   []func()
}

// An Option chooses how a Vault runs.
type Option func(*vaultOptions)

type vaultOptions struct {
	file, tls, sealed, verbose bool
	dir                        string
}

// WithFileStorage keeps the state in files, so that it outlasts Kill and Restart.
func WithFileStorage() Option { return func(o *vaultOptions) { o.file = true } }

// WithTLS serves HTTPS with a certificate for 127.0.0.1 and localhost, and asks for
// certificates of clients.
func WithTLS() Option { return func(o *vaultOptions) { o.tls = true } }

// WithDir keeps the state in a folder of the caller's, who removes it. With file
// storage, a Vault started later on the same folder goes on from there.
func WithDir(dir string) Option { return func(o *vaultOptions) { o.dir = dir } }

// WithSealed starts sealed; Unseal opens it.
func WithSealed() Option { return func(o *vaultOptions) { o.sealed = true } }

// WithVerbose makes the server tell all it does, to be seen when it fails.
func WithVerbose() Option { return func(o *vaultOptions) { o.verbose = true } }

// StartVault runs a Vault for the time of a test.
func StartVault(t testing.TB, options ...Option) *Vault {
	t.Helper()
	v, err := LaunchVault(t.Context(), options...)
	if err != nil {
		t.Fatal("cannot start Vault, which .ci/servers/vault.sh builds: ", err)
	}
	v.fail = t.Fatalf
	t.Cleanup(func() {
		if err := v.Stop(); err != nil {
			t.Error(err)
		}
	})
	return v
}

// LaunchVault runs a Vault until Stop. The context bounds only the start.
func LaunchVault(ctx context.Context, options ...Option) (*Vault, error) {
	var o vaultOptions
	for _, option := range options {
		option(&o)
	}
	program, err := install(ctx, "vault.sh")
	if err != nil {
		return nil, err
	}
	v := &Vault{fail: panicf}
	if o.dir == "" {
		v.Dir, err = os.MkdirTemp("", "sallyport-vault-")
		v.stops = append(v.stops, func() { _ = os.RemoveAll(v.Dir) })
	} else if v.Dir, err = filepath.Abs(o.dir); err == nil {
		err = os.MkdirAll(v.Dir, 0o700)
	}
	if err != nil {
		return nil, err
	}
	if err := v.launch(ctx, program, o); err != nil {
		return nil, errors.Join(err, v.Stop())
	}
	return v, nil
}

func (v *Vault) launch(ctx context.Context, program string, o vaultOptions) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	listen := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	v.process = process{name: "vault-server", path: program, dir: v.Dir, args: []string{"--listen", listen, "--dir", v.Dir}}
	if o.file {
		v.process.args = append(v.process.args, "--storage", "file")
	}
	if o.verbose {
		v.process.args = append(v.process.args, "--verbose")
	}
	v.Address = "http://" + listen
	if o.tls {
		v.Address = "https://" + listen
		flags, err := v.prepareTLS()
		if err != nil {
			return err
		}
		v.process.args = append(v.process.args, flags...)
	}
	if v.api, err = newAPI(v.Address, v.CACert); err != nil {
		return err
	}
	again := v.process.args
	if o.sealed {
		v.process.args = append(again[:len(again):len(again)], "--sealed")
	}
	err = v.start(ctx)
	v.process.args = again
	return err
}

// start returns when the server says that it is ready, which is after unsealing.
func (v *Vault) start(ctx context.Context) error {
	err := v.process.start(ctx, func(context.Context) error {
		if !v.process.announced("ready " + v.Address) {
			return errors.New("not ready yet")
		}
		return nil
	})
	if err != nil {
		return err
	}
	token, err := os.ReadFile(filepath.Join(v.Dir, "root.token"))
	// Left alone if it is the same: others may be using it.
	if s := string(token); s != v.RootToken {
		v.RootToken = s
	}
	return err
}

// Stop ends the server and removes its state.
func (v *Vault) Stop() error {
	err := v.Kill()
	for _, stop := range v.stops {
		stop()
	}
	v.stops = nil
	return err
}

// Kill ends the server at once, as a crash would.
func (v *Vault) Kill() error {
	if v.api != nil {
		v.api.client.CloseIdleConnections()
	}
	return v.process.kill()
}

// Restart starts the server again on the same port after killing it if it runs. With
// file storage everything is as before; without, it is a new Vault with another
// RootToken.
func (v *Vault) Restart() error {
	if err := v.Kill(); err != nil {
		return err
	}
	if err := v.mend(); err != nil {
		return err
	}
	return v.start(context.Background())
}

// mend removes what a killed Vault was writing. Its file storage writes "name" as
// "name123…" first, and what is left of that looks like another lease or token, which
// does not decrypt; then Vault seals itself soon after its start. Names of leases and
// tokens are of one length in each folder, so the longer ones are those.
func (v *Vault) mend() error {
	for _, below := range []string{"expire/id", "token/id", "token/accessor"} {
		folders := map[string][]string{}
		err := filepath.WalkDir(filepath.Join(v.Dir, "storage", "sys", below), func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				folders[filepath.Dir(path)] = append(folders[filepath.Dir(path)], path)
			}
			return err
		})
		if errors.Is(err, fs.ErrNotExist) {
			continue // storage in memory
		}
		if err != nil {
			return err
		}
		for _, files := range folders {
			shortest := slices.MinFunc(files, func(a, b string) int { return len(a) - len(b) })
			for _, f := range files {
				if len(f) > len(shortest) {
					if err := os.Remove(f); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// Pause stops the server without ending it: connections are made, nothing answers.
func (v *Vault) Pause() error { return v.process.pause() }

// Resume continues it after Pause.
func (v *Vault) Resume() error { return v.process.resume() }

// PID is the server's process, or 0 if it does not run.
func (v *Vault) PID() int { return v.process.pid() }

// CPU is the time that the server has computed since it was started last.
func (v *Vault) CPU() (time.Duration, error) { return v.process.cpu() }

// Output is the end of what the server has logged.
func (v *Vault) Output() string { return v.process.log() }

// Seal makes the server refuse everything until Unseal.
func (v *Vault) Seal() error {
	_, err := v.Do("PUT", "sys/seal", nil)
	return err
}

// Unseal undoes Seal.
func (v *Vault) Unseal() error {
	key, err := os.ReadFile(filepath.Join(v.Dir, "unseal.key"))
	if err != nil {
		return err
	}
	answer, err := v.Do("PUT", "sys/unseal", map[string]any{"key": string(key)})
	if err == nil && answer["sealed"] != false {
		err = errors.New("still sealed")
	}
	return err
}

func panicf(format string, args ...any) { panic(fmt.Sprintf("vaulttest: "+format, args...)) }
