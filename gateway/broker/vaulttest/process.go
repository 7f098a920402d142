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
		return waitStill(family, "")
	}
	return nil
}

func (p *process) kill() error { return p.end(syscall.SIGKILL, false) }

// pause stops the server and everything below it, and returns when nothing of it runs:
// the kernel stops a thread when it is next scheduled, and a server may answer until
// then.
func (p *process) pause() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return errNotRunning
	}
	pid := p.cmd.Process.Pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	if err := waitStill(threads(pid), "T"); err != nil { // so that it has no more children
		return err
	}
	for _, child := range descendants(pid) {
		_ = syscall.Kill(child, syscall.SIGSTOP) // it may have ended by itself
		if err := waitStill(threads(child), "T"); err != nil {
			return err
		}
	}
	return nil
}

// resume lets go on what is paused.
func (p *process) resume() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return errNotRunning
	}
	pid := p.cmd.Process.Pid
	for _, child := range descendants(pid) {
		_ = syscall.Kill(child, syscall.SIGCONT)
	}
	return syscall.Kill(pid, syscall.SIGCONT)
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

// threads lists the threads of a process.
func threads(pid int) (tids []int) {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)) // none if it has ended
	for _, entry := range entries {
		if tid, err := strconv.Atoi(entry.Name()); err == nil {
			tids = append(tids, tid)
		}
	}
	return tids
}

// waitStill waits until each of the processes or threads is in one of the states or
// gone. The kernel may keep the name of what has ended for a parent that does not ask.
func waitStill(ids []int, states string) error {
	for deadline := time.Now().Add(stopTimeout); len(ids) > 0; {
		fields, err := stat(ids[0])
		switch {
		case err != nil || strings.Contains("ZX"+states, fields[0]):
			ids = ids[1:]
		case time.Now().After(deadline):
			return fmt.Errorf("process %d goes on, in state %s", ids[0], fields[0])
		default:
			time.Sleep(pollInterval)
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
