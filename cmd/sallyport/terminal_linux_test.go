package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/gateway/development"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
)

// terminal opens a pseudo terminal: the side of the keyboard, and that of programs.
func terminal(t *testing.T) (keyboard, programs *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	programs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { programs.Close() })
	return keyboard, programs
}

// What a key does reaches the command once, from the terminal; it reads from there, too.
// Somebody else's signal is passed on all the same.
func TestAKeyInterruptsTheCommandOnce(t *testing.T) {
	gw := gatewaytest.Start(t)
	keyboard, programs := terminal(t)
	log := filepath.Join(t.TempDir(), "log")
	script := `
import os, signal, sys
log = open(sys.argv[1], "a", buffering=1)
signal.signal(signal.SIGINT, lambda *_: log.write("int\n"))
signal.signal(signal.SIGUSR1, lambda *_: log.write("usr1\n"))
log.write("ready\n")
while True:
    line = sys.stdin.readline()
    log.write(line)
    if line == "end\n": sys.exit(9)
`
	command := exec.Command("sallyport", "run", "--secret", "KEY="+development.DemoSecretRole+".private_key", "--", "python3", "-c", script, log)
	command.Env = append(os.Environ(), "SALLYPORT_PROFILE="+filepath.Join(gw.Dir, "endpoints.json"))
	command.Stdin, command.Stdout, command.Stderr = programs, programs, programs
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer command.Process.Kill()
	await := func(want string) {
		t.Helper()
		for range 400 {
			if got, _ := os.ReadFile(log); string(got) == want {
				return
			}
			time.Sleep(25 * time.Millisecond)
		}
		got, _ := os.ReadFile(log)
		t.Fatalf("%q, want %q", got, want)
	}
	await("ready\n")
	if _, err := keyboard.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	await("ready\nint\n")
	if _, err := keyboard.WriteString("typed\n"); err != nil {
		t.Fatal(err)
	}
	await("ready\nint\ntyped\n")
	if err := command.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	await("ready\nint\ntyped\nusr1\n")
	if _, err := keyboard.WriteString("end\n"); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); command.ProcessState.ExitCode() != 9 {
		out := make([]byte, 4096)
		n, _ := keyboard.Read(out)
		t.Errorf("%v: %s", err, strings.TrimSpace(string(out[:n])))
	}
}
