package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/development"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
)

// The test binary runs again as the command.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sallyport": main, "vault": vaultMain})
}

// Each script meets the command as a user does, with a real gateway of its own whose
// profile is in the environment.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal(scripts, err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			t.Parallel()
			gw := gatewaytest.Start(t)
			runtimeDir := memory(t)
			testscript.Run(t, testscript.Params{
				Files: []string{script}, RequireExplicitExec: true,
				Setup: func(env *testscript.Env) error {
					setup(env, gw)
					env.Setenv("XDG_RUNTIME_DIR", runtimeDir)
					return nil
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"status": status, "flip": flip, "logkey": logkey,
					"stopgateway": func(ts *testscript.TestScript, _ bool, _ []string) { ts.Check(gw.Stop()) },
					"issue":       func(ts *testscript.TestScript, _ bool, args []string) { issue(ts, gw, args) },
				},
			})
		})
	}
}

func setup(env *testscript.Env, gw *gatewaytest.Gateway) {
	e := gw.Endpoints
	env.Setenv("SALLYPORT_PROFILE", filepath.Join(gw.Dir, "endpoints.json"))
	env.Setenv("SALLYPORT_KEYRING", development.DemoKeyring)
	for name, value := range map[string]string{
		"GRPC": e.GRPC, "CONTROL": e.Control, "CA": e.CA, "CERT": e.Workload.Cert, "KEY": e.Workload.Key,
		"HUMAN_CERT": e.Operator.Cert, "HUMAN_KEY": e.Operator.Key, "AUDIT": e.Audit.Dir, "AUDIT_KEY": e.Audit.Key,
	} {
		env.Setenv(name, value)
	}
}

// status N COMMAND… runs a command that ends with exit status N.
func status(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit status %d, want %s", got, args[0])
	}
}

// flip FILE OFFSET changes one bit of a file; a negative offset counts from its end.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	offset, err := strconv.Atoi(args[1])
	ts.Check(err)
	if offset < 0 {
		offset += len(data)
	}
	data[offset] ^= 1
	ts.Check(os.WriteFile(path, data, 0o600))
}

// logkey NAME FILE writes the public key of another audit log.
func logkey(ts *testscript.TestScript, _ bool, args []string) {
	key, err := audit.GenerateKey(args[0])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(key.Public().String()+"\n"), 0o600))
}

// issue SPIFFE-ID NAME writes a certificate of the workloads' authority to NAME.pem
// and NAME.key.
func issue(ts *testscript.TestScript, gw *gatewaytest.Gateway, args []string) {
	ts.Check(gw.Workloads.Issue(ts.MkAbs(args[1]+".pem"), ts.MkAbs(args[1]+".key"), development.Leaf{SPIFFEID: args[0]}))
}

// What is not text is not written to a terminal unless that is asked for.
func TestTerminals(t *testing.T) {
	device, err := os.OpenFile("/dev/zero", os.O_WRONLY, 0) // a character device, as a terminal is
	if err != nil {
		t.Skip(err)
	}
	defer device.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()

	for _, test := range []struct {
		to      *os.File
		out     string
		refused bool
	}{{device, "", true}, {device, "-", false}, {device, "x", false}, {null, "", false}, {file, "", false}} {
		f := files{app: &app{stdout: test.to}, out: test.out}
		if err := f.refuseTerminal("it", "do"); (err != nil) != test.refused {
			t.Errorf("%s with --out %q: %v", test.to.Name(), test.out, err)
		}
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "hello, wörld\n\tx": true, "\x1b[2J": false, "\x00": false, "\xff\xfe": false, "\u202e": false,
	} {
		if got := printable([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// Every reason has an exit status, and those that scripts rely on have the one that
// docs/cli.md says.
func TestExitStatus(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{usagef("x"), 2}, {fmt.Errorf("x: %w", errUnverified), 5}, {errors.New("x"), 1},
	} {
		if got := exitStatus(test.err); got != test.want {
			t.Errorf("%v: %d", test.err, got)
		}
	}
}
