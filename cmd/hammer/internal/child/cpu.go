package child

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"time"
)

// clockTick is the unit of times in /proc/PID/stat; every Linux that Go runs on
// reports a hundred to the second there (USER_HZ).
const clockTick = 10 * time.Millisecond

// CPU is the processor time that the process has used, user and system.
func (p *Process) CPU() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0, err
	}
	return parseStat(stat)
}

// parseStat adds utime and stime, the 14th and 15th field (proc_pid_stat(5)). The
// second field is a name in parentheses that may hold anything, parentheses too.
func parseStat(stat []byte) (time.Duration, error) {
	const firstAfterName, utime, stime = 3, 14, 15
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) <= stime-firstAfterName {
		return 0, fmt.Errorf("not the form of /proc/PID/stat: %q", stat)
	}
	var ticks uint64
	for _, n := range []int{utime, stime} {
		v, err := strconv.ParseUint(string(fields[n-firstAfterName]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("not the form of /proc/PID/stat: %w", err)
		}
		ticks += v
	}
	return time.Duration(ticks) * clockTick, nil
}

// Machine is the processor time that was used on the whole machine since it started,
// by anybody; what a hypervisor took away is used too.
func Machine() (time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseMachine(stat)
}

// parseMachine adds user, nice, system, irq, softirq and steal (proc_stat(5)); guests
// are in user and nice already.
func parseMachine(stat []byte) (time.Duration, error) {
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) < 9 || string(fields[0]) != "cpu" {
		return 0, fmt.Errorf("not the form of /proc/stat: %q", line)
	}
	var ticks uint64
	for _, n := range []int{1, 2, 3, 6, 7, 8} {
		v, err := strconv.ParseUint(string(fields[n]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("not the form of /proc/stat: %w", err)
		}
		ticks += v
	}
	return time.Duration(ticks) * clockTick, nil
}

const (
	settlePoll  = 100 * time.Millisecond
	settleLimit = 3 * time.Second
)

// Settle waits until the process is idle, and at most three seconds: the work that
// a server puts off until after its replies belongs to the operations that caused
// it, and must not slow down whatever is measured next.
func (p *Process) Settle(ctx context.Context) error {
	last, err := p.CPU()
	for end := time.Now().Add(settleLimit); err == nil && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settlePoll):
		}
		var now time.Duration
		now, err = p.CPU()
		if now-last < clockTick {
			return err
		}
		last = now
	}
	return err
}

// Memory is the resident set of the process in bytes.
func (p *Process) Memory() (int64, error) {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.PID()))
	if err != nil {
		return 0, err
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
		return 0, fmt.Errorf("not the form of /proc/PID/statm: %w", err)
	}
	return resident * int64(os.Getpagesize()), nil
}
