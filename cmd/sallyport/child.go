package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The statuses that a shell gives for a command that does not start, and for one that
// a signal ended (POSIX.1-2024, XCU 2.8.2).
const (
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignalled     = 128 // and the signal's number
)

// child is the command of "sallyport run": started, started again when a secret changes,
// given signals, and waited for. It is in our process group, so that what a terminal
// does to the one it does to the other.
type child struct {
	command []string
	stdio   [3]*os.File
	// environ gives the environment for the next start.
	environ func() ([]string, error)
	grace   time.Duration // between SIGTERM and SIGKILL
	signals <-chan os.Signal
	changes <-chan change

	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	kill   <-chan time.Time
	// restart is the change for which the command is being stopped.
	restart *change
	// ending is true once somebody asked the command to end: it is not started again.
	ending bool
}

// change is asked for when a secret has changed. The answer says whether it was done.
type change struct {
	signal syscall.Signal // 0 starts the command again
	done   chan<- error   // buffered
}

var errEnding = errors.New("the command is ending")

// passed are the signals that are given on to the command.
var passed = []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2}

// catch delivers the signals that are passed on. Those that we were told to ignore stay
// ignored, for the command too: nohup is for it.
func catch() (signals chan os.Signal, stop func()) {
	signals = make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM) // of none at all it would be all
	for _, s := range passed {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	return signals, func() { signal.Stop(signals) }
}

// find looks a command up, so that a mistyped one is known before anything is leased.
func find(command string) error {
	_, err := exec.LookPath(command)
	return startError(command, err)
}

// startError gives the status that a shell would.
func startError(command string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return &statusError{exitNotFound, fmt.Errorf("%s: not found", command)}
	default:
		if e := (*exec.Error)(nil); errors.As(err, &e) {
			err = e.Err // the name is said once
		}
		return &statusError{exitNotExecutable, fmt.Errorf("%s: %w", command, err)}
	}
}

// run runs the command to its end and gives its status.
func (c *child) run() (int, error) {
	// The command is told when the thread that started it ends, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := c.start(); err != nil {
		return 0, err
	}
	for {
		changes := c.changes
		if c.restart != nil || c.ending {
			changes = nil // one after the other; those who wait give up with run
		}
		select {
		case <-c.exited:
			if c.restart == nil || c.ending {
				return statusOf(c.cmd.ProcessState), nil
			}
			err := c.start()
			c.restart.done <- err
			if c.restart = nil; err != nil {
				return 0, err
			}
		case s := <-c.signals:
			c.pass(s.(syscall.Signal))
		case ask := <-changes:
			c.change(ask)
		case <-c.kill:
			_ = c.cmd.Process.Kill() // it may have ended by now
		}
	}
}

func (c *child) start() error {
	environ, err := c.environ()
	if err != nil {
		return err
	}
	c.kill = nil
	c.cmd = exec.Command(c.command[0], c.command[1:]...) //nolint:gosec,noctx // the command is what the user asked for, and its end is its own
	c.cmd.Env = environ
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = c.stdio[0], c.stdio[1], c.stdio[2]
	c.cmd.SysProcAttr = attributes()
	if err := c.cmd.Start(); err != nil {
		return startError(c.command[0], err)
	}
	c.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan<- struct{}) {
		_ = cmd.Wait() // its state says it all
		close(exited)
	}(c.cmd, c.exited)
	return nil
}

// pass gives a signal to the command, unless the terminal did.
func (c *child) pass(s syscall.Signal) {
	byTerminal := (s == syscall.SIGINT || s == syscall.SIGQUIT) && inForeground()
	if s == syscall.SIGTERM || (s == syscall.SIGINT || s == syscall.SIGQUIT) && (!byTerminal || c.restart != nil) {
		c.ending = true
	}
	if !byTerminal {
		_ = c.cmd.Process.Signal(s) // it may have ended by now
	}
}

// change does what was asked for, or begins to.
func (c *child) change(ask change) {
	if ask.signal != 0 {
		ask.done <- c.cmd.Process.Signal(ask.signal)
		return
	}
	// First whether it can be started again: it would be a pity to stop it otherwise.
	if _, err := c.environ(); err != nil {
		ask.done <- err
		return
	}
	c.restart = &ask
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by now
	c.kill = time.After(c.grace)
}

func statusOf(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return exitSignalled + int(w.Signal())
	}
	return s.ExitCode()
}

// inForeground reports whether our process group is the one that the terminal sends its
// signals to.
func inForeground() bool {
	terminal, err := os.OpenFile("/dev/tty", os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	defer func() { _ = terminal.Close() }() // it was only asked
	group, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
