package lockdown

import (
	"fmt"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

func process() error {
	// A traceback prints the arguments of every frame, and arguments can be secrets.
	debug.SetTraceback("none")
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("lockdown: core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("lockdown: tracing: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("lockdown: privileges: %w", err)
	}
	return nil
}
