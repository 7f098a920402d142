package vaulttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// installTimeout is for a machine that has to build the server first.
	installTimeout = 15 * time.Minute
	startTimeout   = time.Minute
	stopTimeout    = 10 * time.Second
	pollInterval   = 20 * time.Millisecond
	keptOutput     = 16 << 10
)

var errNotRunning = errors.New("the server does not run")

// process is a server's, which may be killed and started again.
type process struct {
	name       string
	path       string
	args       []string
	dir        string
	credential *syscall.Credential

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	stdout *tail
	stderr *tail
}

// start runs the program and waits until ready says so. When it gives up, the error
// holds what the program said.
func (p *process) start(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	exited, err := p.spawn()
	if err != nil {
		return err
	}
	for {
		if err = ready(ctx); err == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("%s ended at start: %s", p.name, p.log())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s does not answer: %w: %s", p.name, err, p.log()), p.kill())
		case <-time.After(pollInterval):
		}
	}
}

func (p *process) spawn() (exited chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return nil, fmt.Errorf("%s runs already", p.name)
	}
	// Not bound to a context: the server outlives the function that starts it.
	cmd := exec.Command(p.path, p.args...)
	cmd.Dir = p.dir
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "TZ=UTC", "HOME=" + p.dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: p.credential}
	p.stdout, p.stderr = &tail{}, &tail{}
	cmd.Stdout, cmd.Stderr = p.stdout, p.stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	p.cmd, p.exited = cmd, make(chan struct{})
	go func(exited chan struct{}) {
		_ = cmd.Wait() // how it ended is in its log
		close(exited)
	}(p.exited)
	return p.exited, nil
}

// end sends a signal to the server, and to everything below it if tree is set, and
// waits until it is gone. What does not heed the signal is killed. Ending what does
// not run is nothing.
func (p *process) end(signal syscall.Signal, tree bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil
	}
	pid := p.cmd.Process.Pid
	family := []int{pid}
	if tree {
		if signal == syscall.SIGKILL {
			_ = syscall.Kill(pid, syscall.SIGSTOP) // so that it has no more children
		}
		family = append(family, descendants(pid)...)
	}
	// They may end by themselves meanwhile, so that a signal finds nobody.
	_ = syscall.Kill(pid, signal)
	for _, member := range family {
		if signal == syscall.SIGKILL {
			_ = syscall.Kill(member, signal)
		} else {
			_ = syscall.Kill(member, syscall.SIGCONT) // it may be paused, and would not heed the signal
		}
	}
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	p.cmd = nil
	if tree {
		return waitGone(family)
	}
	return nil
}

func (p *process) kill() error { return p.end(syscall.SIGKILL, false) }

// signal reaches the server and everything below it.
func (p *process) signal(signal syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return errNotRunning
	}
	pid := p.cmd.Process.Pid
	err := syscall.Kill(pid, signal)
	for _, child := range descendants(pid) {
		_ = syscall.Kill(child, signal) // it may have ended by itself
	}
	return err
}

// log is the end of what the server has said on standard error.
func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String()
}

// announced tells whether the server has said something on standard output.
func (p *process) announced(what string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Contains(p.stdout.String(), what)
}

// pid is that of the running server, or 0.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// cpu is the time that the server has computed since it was started last.
func (p *process) cpu() (time.Duration, error) {
	pid := p.pid()
	if pid == 0 {
		return 0, errNotRunning
	}
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	var ticks int64
	for _, field := range fields[11:13] { // utime and stime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil // Linux counts hundredths for everybody
}

// stat reads what the kernel says of a process, from its state on: the name before
// that may hold spaces.
func stat(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 {
		return nil, fmt.Errorf("process %d: cannot read its stat", pid)
	}
	return fields, nil
}

// descendants lists the processes below one, whatever their process group.
func descendants(pid int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	below := map[int][]int{}
	for _, entry := range entries {
		child, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if fields, err := stat(child); err == nil {
			if parent, err := strconv.Atoi(fields[1]); err == nil {
				below[parent] = append(below[parent], child)
			}
		}
	}
	found := below[pid]
	for i := 0; i < len(found); i++ {
		found = append(found, below[found[i]]...)
	}
	return found
}

// waitGone waits until none of the processes does anything any more; the kernel may
// keep their names for a parent that does not ask.
func waitGone(pids []int) error {
	for deadline := time.Now().Add(stopTimeout); len(pids) > 0; time.Sleep(pollInterval) {
		if fields, err := stat(pids[0]); err != nil || fields[0] == "Z" || fields[0] == "X" {
			pids = pids[1:]
		} else if time.Now().After(deadline) {
			return fmt.Errorf("process %d does not end", pids[0])
		}
	}
	return nil
}

// tail keeps the end of what a server says.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, b...)
	if over := len(t.kept) - keptOutput; over > 0 {
		t.kept = append([]byte(nil), t.kept[over:]...)
	}
	return len(b), nil
}

// String is what was kept.
func (t *tail) String() string {
	if t == nil {
		return ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.kept))
}

var _ io.Writer = (*tail)(nil)

// install runs a script of .ci/servers, which installs the server if need be, and
// returns the path that it prints.
func install(ctx context.Context, script string) (string, error) {
	root, err := repository()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(root, ".ci", "servers", script))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", script, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// repository walks up to the folder with go.mod.
func repository() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the test")
		}
		dir = parent
	}
	return "", err
}

// freePort finds a port below those that the kernel gives to connections: a server
// that was killed wants the same one again, and nobody may have got it meanwhile.
func freePort() (int, error) {
	for range 100 {
		var random [2]byte
		_, _ = rand.Read(random[:]) // it does not fail
		port := 15000 + int(binary.NativeEndian.Uint16(random[:]))%15000
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, listener.Close()
		}
	}
	return 0, errors.New("no free port")
}
