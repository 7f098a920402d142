package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sallyport/sallyport/gateway/development"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// The test binary runs again as the command.
func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"sallyportd": main}) }

// Each script begins in a directory with certificates and a configuration that
// nobody has initialized yet.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireExplicitExec: true, Setup: setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"replace": replace, "wait-served": waitServed, "terminate": terminate,
		},
	})
}

const configuration = `deployment: acme
environment: test
listen:
  grpc: 127.0.0.1:0
  control: CONTROL
  ops: 127.0.0.1:0
tls:
  certificate: server.pem
  key: server.key
trust:
  domains:
    - name: dev.sallyport
      bundle: workloads.pem
  operators: operators.pem
store:
  sqlite: store.db
kek:
  current: local
  local:
    - name: local
      file: kek
      credential_file: credential
audit:
  directory: audit
  origin: acme/audit
  key: audit.key
  pseudonym_key: pseudonym.key
`

func setup(env *testscript.Env) error {
	servers, err := development.NewAuthority(env.WorkDir, "ca")
	if err != nil {
		return err
	}
	operators, err := development.NewAuthority(env.WorkDir, "operators")
	if err != nil {
		return err
	}
	if _, err := development.NewAuthority(env.WorkDir, "workloads"); err != nil {
		return err
	}
	at := func(name string) string { return filepath.Join(env.WorkDir, name) }
	if err := servers.Issue(at("server.pem"), at("server.key"), development.Leaf{Server: true}); err != nil {
		return err
	}
	if err := operators.Issue(at("operator.pem"), at("operator.key"), development.Leaf{CommonName: "alice"}); err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	env.Setenv("CONTROL", address)
	text := strings.Replace(configuration, "CONTROL", address, 1)
	for name, content := range map[string]string{
		"sallyport.yaml": text, "credential": "0123456789abcdef0123456789abcdef", "policy/development.cedar": development.Policy,
	} {
		if err := os.MkdirAll(filepath.Dir(at(name)), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(at(name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// freeAddress is an address of loopback where nobody listens.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// replace FILE PATTERN TEXT replaces what matches in a file; there must be
// something.
func replace(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	before := ts.ReadFile(args[0])
	after := regexp.MustCompile("(?m)"+args[1]).ReplaceAllString(before, args[2])
	if after == before {
		ts.Fatalf("nothing in %s matches %s", args[0], args[1])
	}
	ts.Check(os.WriteFile(path, []byte(after), 0o600))
}

// wait-served waits until the control plane answers the operator.
func waitServed(ts *testscript.TestScript, neg bool, _ []string) {
	pair := development.Pair{Cert: ts.MkAbs("operator.pem"), Key: ts.MkAbs("operator.key")}
	conn, err := development.Dial(ts.Getenv("CONTROL"), ts.MkAbs("ca.pem"), pair)
	ts.Check(err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		_, err = controlv1.NewKeyringServiceClient(conn).ListTenants(ctx, &controlv1.ListTenantsRequest{})
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("not served: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// terminate sends SIGTERM to what runs in the background.
func terminate(ts *testscript.TestScript, _ bool, _ []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGTERM))
	}
}
