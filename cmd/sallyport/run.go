package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	sallyport "github.com/sallyport/sallyport/clients/go"
)

// directoryVariable tells the command where its files are.
const directoryVariable = "SALLYPORT_SECRETS"

// untilItEnds is longer than any lease: one that was replaced is left to its own end.
const untilItEnds = 100 * 24 * time.Hour

// runner is one "sallyport run".
type runner struct {
	app       *app
	variables []target // by name of the environment variable
	files     []target // by path below the directory
	action    action
	lifetime  time.Duration
	grace     time.Duration
	wait      time.Duration // for the first secrets
	dir       *secretDir    // nil without files

	changes chan change
	stopped chan struct{} // closed when the command has ended for good

	mu     sync.Mutex
	latest map[string]*sallyport.Secret // by role
}

// target is where a part of a secret goes.
type target struct {
	name string
	from selector
}

// action is what is done about a change: the signal is sent, or the command started
// again, or nothing done.
type action struct {
	restart bool
	signal  syscall.Signal
}

func (a *app) runCommand() *cobra.Command {
	var variables, secretFiles []string
	var onChange, base string
	var allowDisk bool
	r := &runner{app: a}
	c := &cobra.Command{
		Use:   "run {--secret ENV=ROLE[.FIELD] | --secret-file PATH=ROLE[.FIELD]}… -- COMMAND [ARG…]",
		Short: "Run a command with leased secrets in its environment or in files, as a workload",
		Long: `Run a command with leased secrets in its environment or in files, as a workload, keep them fresh while it
runs, and revoke them when it has ended, however it ended. Without FIELD the value is one JSON object
with all fields. All that comes of one role comes of one lease.

Files lie in a directory of the command's own, in memory, which $SALLYPORT_SECRETS names; they are
replaced whole. An environment cannot be changed from outside, so a changed secret in it means that
the command is started again: SIGTERM, and SIGKILL after --grace. Signals are passed on to the command,
and its exit status is ours. Before it starts the exit status is that of any command; 127 says that it
was not found, 126 that it cannot be executed.

While the gateway is away the command goes on, with a warning on standard error when a secret has ended.`,
		Example: `  sallyport run --secret PGUSER=tenants/acme/secretRoles/db.username --secret PGPASSWORD=tenants/acme/secretRoles/db.password -- app
  sallyport run --secret-file db.json=tenants/acme/secretRoles/db --on-change signal:HUP -- sh -c 'exec app --db "$SALLYPORT_SECRETS/db.json"'`,
		Args: cobra.MinimumNArgs(1),
	}
	n := a.connects(c, true)
	f := c.Flags()
	f.SetInterspersed(false) // what follows the command is the command's
	f.StringArrayVar(&variables, "secret", nil, "`ENV=ROLE[.FIELD]`: environment variable to put a secret into; may be repeated")
	f.StringArrayVar(&secretFiles, "secret-file", nil, "`PATH=ROLE[.FIELD]`: file below $SALLYPORT_SECRETS to put a secret into; may be repeated")
	f.StringVar(&onChange, "on-change", "", "what a changed secret means for the command: restart, signal:NAME or none (default restart with --secret, otherwise none)")
	f.DurationVar(&r.grace, "grace", 10*time.Second, "how long the command has between SIGTERM and SIGKILL when it is started again")
	f.DurationVar(&r.wait, "wait", time.Minute, "how long to try for the secrets before the command starts, while the gateway or the source is away")
	f.StringVar(&base, "base", "", "directory in which the directory of the files is made (default $XDG_RUNTIME_DIR or /dev/shm)")
	f.BoolVar(&allowDisk, "allow-disk", false, "put the files there even if it is not a tmpfs")
	lifetimeFlag(c, &r.lifetime)
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if err := r.parse(variables, secretFiles, onChange); err != nil {
			return err
		}
		if err := find(args[0]); err != nil {
			return err
		}
		hideMemory()
		if len(r.files) > 0 {
			if r.dir, err = privateDir(a.bases(base), allowDisk); err != nil {
				return err
			}
			defer func() { a.warnIf("the files are not removed", r.dir.removeAll()) }()
		}
		return n.withData(c.Context(), func(ctx context.Context, g *sallyport.Client) error { return r.run(ctx, g, args) })
	}
	return c
}

// bases lists where a directory in memory may be made.
func (a *app) bases(flag string) []string {
	if flag != "" {
		return []string{flag}
	}
	var bases []string
	if dir := a.getenv("XDG_RUNTIME_DIR"); dir != "" {
		bases = append(bases, dir)
	}
	return append(bases, "/dev/shm", os.TempDir()) // the last for --allow-disk
}

// parse settles what the flags say.
func (r *runner) parse(variables, secretFiles []string, onChange string) (err error) {
	if r.variables, err = targets("secret", "ENV", variables, checkVariable); err != nil {
		return err
	}
	if r.files, err = targets("secret-file", "PATH", secretFiles, checkName); err != nil {
		return err
	}
	if len(r.variables)+len(r.files) == 0 {
		return usagef("give --secret or --secret-file; without a secret there is nothing to do")
	}
	if r.grace < 0 {
		return usagef("--grace is negative")
	}
	if onChange == "" && len(r.variables) > 0 {
		onChange = "restart"
	}
	if r.action, err = actionOf(onChange); err != nil {
		return err
	}
	if len(r.variables) > 0 && r.action.signal != 0 {
		return usagef("a signal cannot change the environment of a command: --secret goes with --on-change restart, " +
			"or none to go on with the first value; --secret-file goes with all")
	}
	return nil
}

// targets reads NAME=ROLE[.FIELD] of a flag.
func targets(flag, what string, list []string, check func(name string) error) ([]target, error) {
	var all []target
	for _, item := range list {
		name, role, ok := strings.Cut(item, "=")
		from, selects := parseSelector(role)
		if !ok || !selects {
			return nil, usagef("--%s wants %s=tenants/{tenant}/secretRoles/{role}[.field], not %q", flag, what, item)
		}
		if err := check(name); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(all, func(t target) bool { return t.name == name }) {
			return nil, usagef("--%s names %s twice", flag, name)
		}
		all = append(all, target{name, from})
	}
	return all, nil
}

// checkVariable refuses what shells cannot name (POSIX.1-2024, XBD 8.1), and the variable
// that is ours.
func checkVariable(name string) error {
	for i, c := range name {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return usagef("%q is not the name of an environment variable", name)
		}
	}
	if name == "" || name == directoryVariable {
		return usagef("%q cannot be the name of a secret's environment variable", name)
	}
	return nil
}

func actionOf(text string) (action, error) {
	name, isSignal := strings.CutPrefix(text, "signal:")
	switch {
	case text == "restart":
		return action{restart: true}, nil
	case text == "none", text == "":
		return action{}, nil
	case isSignal:
		s, err := signalOf(name)
		return action{signal: s}, err
	default:
		return action{}, usagef("--on-change is restart, signal:NAME or none")
	}
}

// signalOf knows a signal by its name, HUP or SIGHUP.
func signalOf(name string) (syscall.Signal, error) {
	s := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
	if s == 0 {
		return 0, usagef("%q is not the name of a signal", name)
	}
	return s, nil
}

// run leases, runs the command, and revokes.
func (r *runner) run(ctx context.Context, g *sallyport.Client, command []string) (err error) {
	signals, stop := catch() // before there is something to revoke
	defer stop()
	r.changes, r.stopped, r.latest = make(chan change), make(chan struct{}), map[string]*sallyport.Secret{}
	var kept []keptSecret
	var watcher sync.WaitGroup
	defer func() {
		close(r.stopped)
		watcher.Wait()
		if r.dir != nil {
			r.app.warnIf("the files are not removed", r.dir.removeFiles())
		}
		r.app.closeKept(ctx, kept)
	}()
	for _, role := range r.roles() {
		k, err := r.keep(ctx, g, role)
		if k.Kept != nil {
			kept = append(kept, k)
		}
		if ctx.Err() != nil { // somebody has had enough
			return &statusError{status: exitSignalled + int(ending(signals))}
		}
		if err != nil {
			return err
		}
	}
	watcher.Go(func() { r.app.warnOfEnds(kept, r.stopped) })
	c := &child{
		command: command, stdio: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}, environ: r.environ, grace: r.grace,
		signals: signals, changes: r.changes,
	}
	status, err := c.run()
	if err == nil && status != 0 {
		err = &statusError{status: status}
	}
	return err
}

// ending gives the signal for which the context ended. It may have come before signals
// were caught, or not have got here yet.
func ending(signals <-chan os.Signal) syscall.Signal {
	late := time.After(100 * time.Millisecond)
	for {
		select {
		case s := <-signals:
			if s == syscall.SIGTERM || s == syscall.SIGINT {
				return s.(syscall.Signal)
			}
		case <-late:
			return syscall.SIGTERM
		}
	}
}

// keep leases a secret and has it ready for the start.
func (r *runner) keep(ctx context.Context, g *sallyport.Client, role string) (keptSecret, error) {
	leasing, cancel := patiently(ctx)
	defer cancel()
	leasing, stop := context.WithTimeout(leasing, r.wait)
	defer stop()
	k, err := g.Keep(leasing, role, r.keepOptions(role))
	if err != nil {
		r.app.warnf("%s is not leased", role)
		return keptSecret{}, err
	}
	s, err := k.Current()
	if err == nil {
		err = r.take(role, s, true)
	}
	return keptSecret{role, k}, err
}

// roles lists the roles that are leased, each once.
func (r *runner) roles() (roles []string) {
	for _, t := range slices.Concat(r.variables, r.files) {
		if !slices.Contains(roles, t.from.role) {
			roles = append(roles, t.from.role)
		}
	}
	return roles
}

func (r *runner) keepOptions(role string) sallyport.KeepOptions {
	o := sallyport.KeepOptions{
		Lifetime: r.lifetime,
		OnChange: func(ctx context.Context, s *sallyport.Secret) error { return r.changed(ctx, role, s) },
		OnError:  func(err error) { r.app.warnIf(role, err) },
	}
	switch {
	case r.action.restart:
		o.Grace = -1 // whoever had the old one is gone
	case len(r.variables) > 0:
		o.Grace = untilItEnds // the command goes on with it
	}
	return o
}

// take keeps a secret for the next start, and writes its files. A secret that came
// earlier than the first one was taken is newer.
func (r *runner) take(role string, s *sallyport.Secret, first bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if first && r.latest[role] != nil {
		return nil
	}
	for _, t := range r.files {
		if t.from.role != role {
			continue
		}
		err := t.from.use(s, func(value []byte) error { return r.dir.write(t.name, value) })
		if err != nil {
			return err
		}
	}
	r.latest[role] = s
	return nil
}

// changed does what is to be done about a new secret. When it returns, the command has
// it.
func (r *runner) changed(ctx context.Context, role string, s *sallyport.Secret) error {
	if err := r.take(role, s, false); err != nil {
		return err
	}
	if !r.action.restart && r.action.signal == 0 {
		return nil
	}
	done := make(chan error, 1)
	select {
	case r.changes <- change{r.action.signal, done}:
	case <-r.stopped:
		return errEnding
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-r.stopped:
		return errEnding
	case <-ctx.Done():
		return ctx.Err()
	}
}

// environ gives our environment with what the command is to find in it.
func (r *runner) environ() ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	environ := os.Environ()
	if r.dir != nil {
		environ = append(environ, directoryVariable+"="+r.dir.path)
	}
	for _, t := range r.variables {
		err := t.from.use(r.latest[t.from.role], func(value []byte) error {
			if t.from.field == "" {
				value = bytes.TrimSuffix(value, []byte("\n")) // of the JSON, which is ours
			}
			if bytes.IndexByte(value, 0) >= 0 {
				return fmt.Errorf("%s holds a zero byte, which no environment can; use --secret-file", t.from)
			}
			// A copy that stays until it is collected: environments are strings.
			environ = append(environ, t.name+"="+string(value))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return environ, nil
}
