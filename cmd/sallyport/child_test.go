package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// supervised is a child that runs a shell script, and the ends of its channels.
type supervised struct {
	*child
	signals chan os.Signal
	changes chan change
	file    string // the script appends to it, as $FILE
	done    chan error
	status  int
}

func supervise(t *testing.T, script string, environ func() error) *supervised {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	s := &supervised{
		signals: make(chan os.Signal, 1), changes: make(chan change), file: filepath.Join(t.TempDir(), "file"), done: make(chan error, 1),
	}
	s.child = &child{
		command: []string{"sh", "-c", script}, stdio: [3]*os.File{null, null, os.Stderr}, grace: 10 * time.Second,
		environ: func() ([]string, error) { return append(os.Environ(), "FILE="+s.file), environ() },
		signals: s.signals, changes: s.changes,
	}
	return s
}

func (s *supervised) start() {
	go func() {
		var err error
		s.status, err = s.run()
		s.done <- err
	}()
}

// await waits for lines in the file.
func (s *supervised) await(t *testing.T, lines int) string {
	t.Helper()
	for range 400 {
		text, _ := os.ReadFile(s.file)
		if strings.Count(string(text), "\n") >= lines {
			return string(text)
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatalf("the command did not write %d lines", lines)
	return ""
}

func fine() error { return nil }

// Somebody who asks the command to end does not get another one, even if it was about
// to be started again.
func TestACommandThatIsToEndIsNotStartedAgain(t *testing.T) {
	s := supervise(t, `trap 'echo term >> $FILE' TERM; echo start >> $FILE; while test $(grep -c term $FILE) -lt 2; do sleep 0.01; done; exit 3`, fine)
	s.start()
	s.await(t, 1)
	s.changes <- change{done: make(chan error, 1)}
	s.await(t, 2) // it was told to, and goes on
	s.signals <- syscall.SIGTERM
	if err := <-s.done; err != nil || s.status != 3 {
		t.Fatal(s.status, err)
	}
	if text := s.await(t, 3); text != "start\nterm\nterm\n" {
		t.Errorf("%q", text)
	}
}

// If there is no environment for it the command is left as it is.
func TestACommandThatCannotBeStartedAgainIsNotStopped(t *testing.T) {
	broken := errors.New("broken")
	first := true
	s := supervise(t, `trap 'echo term >> $FILE; exit 0' TERM; echo start >> $FILE; while :; do sleep 0.01; done`, func() error {
		if first {
			first = false
			return nil
		}
		return broken
	})
	s.start()
	s.await(t, 1)
	done := make(chan error, 1)
	s.changes <- change{done: done}
	if err := <-done; !errors.Is(err, broken) {
		t.Error(err)
	}
	// The command reads nothing of it.
	s.changes <- change{signal: syscall.SIGCONT, done: done}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if text := s.await(t, 1); text != "start\n" {
		t.Errorf("%q", text)
	}
	s.signals <- syscall.SIGTERM
	if err := <-s.done; err != nil || s.status != 0 {
		t.Error(s.status, err)
	}
}

// A program that vanished while it ran ends with the status of what is not found.
func TestACommandThatVanishedIsNotFound(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho start >> $FILE\nexec sleep 100\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := supervise(t, "", fine)
	s.command = []string{program}
	s.start()
	s.await(t, 1)
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	s.changes <- change{done: done}
	err := <-s.done
	if exitStatus(err) != exitNotFound || !strings.Contains(err.Error(), "not found") {
		t.Error(err)
	}
	if told := <-done; told == nil {
		t.Error("the change was said to be done")
	}
}

func TestSignalsHaveNames(t *testing.T) {
	for name, want := range map[string]syscall.Signal{"HUP": syscall.SIGHUP, "SIGHUP": syscall.SIGHUP, "usr1": syscall.SIGUSR1, "": 0, "1": 0, "NONE": 0} {
		if got, err := signalOf(name); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
}
