// Package child runs the servers that are measured, each a process of its own, and
// reads what they cost.
package child

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Process is a server that this program started.
type Process struct {
	name    string
	cmd     *exec.Cmd
	started time.Time
	ready   time.Duration
	log     *os.File
	done    chan struct{} // closed when the process has ended
	err     error         // how it ended; valid once done is closed
	stop    sync.Once
}

// readyLine is what our servers print when they serve.
const readyLine = "ready"

// Start runs a server and waits until it prints "ready". What it prints is appended
// to the file at logPath. A process that is not ready when the context ends is killed.
func Start(ctx context.Context, logPath, program string, args ...string) (*Process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p := &Process{name: program, log: log, done: make(chan struct{})}
	// It outlives the context, which is only that of the wait.
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), program, args...) //nolint:gosec // our own programs
	p.cmd.Stderr = log
	// A group of its own: an interrupt at the terminal reaches this program alone,
	// which then stops its servers in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	p.started = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	ready := make(chan struct{})
	go p.tend(out, ready)
	select {
	case <-ready:
		return p, nil
	case <-p.done:
		return nil, fmt.Errorf("%s ended before it was ready (%w); its output is in %s", program, p.err, logPath)
	case <-ctx.Done():
		p.Kill()
		return nil, fmt.Errorf("%s was not ready: %w; its output is in %s", program, ctx.Err(), logPath)
	}
}

// tend reads what the process prints until it ends.
func (p *Process) tend(out io.Reader, ready chan<- struct{}) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if p.ready == 0 && lines.Text() == readyLine {
			p.ready = time.Since(p.started)
			close(ready)
		}
		fmt.Fprintln(p.log, lines.Text())
	}
	_, _ = io.Copy(p.log, out) // a line too long for the scanner
	p.err = p.cmd.Wait()
	if p.err == nil {
		p.err = errors.New("exit status 0")
	}
	_ = p.log.Close()
	close(p.done)
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ready is the time from the start of the process to its "ready" line.
func (p *Process) Ready() time.Duration { return p.ready }

// Err is how the process ended, or nil while it runs.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended: %w", p.name, p.err)
	default:
		return nil
	}
}

// Kill ends the process as a crash would, and waits for its end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it fails when the process has ended already
	<-p.done
}

// grace is how long a server may take to drain.
const grace = 10 * time.Second

// Stop asks the process to end, insists after a while, and waits for its end.
func (p *Process) Stop() {
	p.stop.Do(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(grace):
			p.Kill()
		}
	})
}
