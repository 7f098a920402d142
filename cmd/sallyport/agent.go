package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	sallyport "github.com/sallyport/sallyport/clients/go"
)

const (
	commandTimeout = time.Minute
	// commandDelay is how long what a killed command started may hold its output open.
	commandDelay = 2 * time.Second
)

func (a *app) agentCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "agent --config FILE", Short: "Keep secrets fresh in files, as a workload, until told to end", Args: cobra.NoArgs,
		Long: `Keep secrets fresh in files, as a workload, until SIGTERM, SIGINT or SIGHUP; then the files are wiped and
removed and the leases revoked. "ready" is printed when every file is there. New files are put in place
whole, and then the command is run or the signal sent that the configuration names for it; if that fails,
the secret before goes on working and it is tried again.

Flags win over the configuration, and that over the environment.`,
		Example: `  sallyport agent --config agent.yaml`,
	}
	n := a.connects(c, true)
	c.Flags().StringVar(&file, "config", "", "YAML file; docs/cli.md explains it")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if file == "" {
			return usagef("--config is missing")
		}
		config, err := readAgentConfig(file)
		if err != nil {
			return err
		}
		n.configure(config.Connection, c.Flags().Changed("timeout"))
		dirs := make([]*secretDir, len(config.Secrets))
		for i, s := range config.Secrets {
			if dirs[i], err = openDir(s.Directory, s.mode, s.uid, s.gid, config.AllowDisk); err != nil {
				return fmt.Errorf("%s: secrets[%d].directory: %w", file, i, err)
			}
		}
		hideMemory()
		ctx := c.Context()
		if !signal.Ignored(syscall.SIGHUP) {
			var stop context.CancelFunc
			ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP)
			defer stop()
		}
		return n.withData(ctx, func(ctx context.Context, g *sallyport.Client) error {
			return a.runAgent(ctx, g, config.Secrets, dirs)
		})
	}
	return c
}

// configure takes from a configuration what no flag says.
func (n *connection) configure(c agentConnection, timeoutSet bool) {
	if n.agent == "" && n.cert == "" && n.key == "" { // these come from one place
		n.agent, n.cert, n.key = c.WorkloadAPI, c.Cert, c.Key
	}
	for _, f := range []struct {
		to   *string
		from string
	}{
		{&n.profile, c.Profile},
		{&n.address, c.Endpoint},
		{&n.ca, c.CA},
		{&n.serverName, c.ServerName},
		{&n.serverID, c.ServerID},
	} {
		*f.to = first(*f.to, f.from)
	}
	if !timeoutSet && c.Timeout > 0 {
		n.timeout = c.Timeout
	}
}

// runAgent leases everything, keeps it until ctx ends, and revokes it. What is refused
// at the start ends it all; what is only away is waited for.
func (a *app) runAgent(ctx context.Context, g *sallyport.Client, secrets []agentSecret, dirs []*secretDir) error {
	starting, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		all  sync.WaitGroup
		mu   sync.Mutex
		kept []keptSecret
		errs []error
	)
	defer func() {
		for _, d := range dirs {
			a.warnIf("the files are not removed", d.removeFiles())
		}
	}()
	defer func() { a.closeKept(ctx, kept) }() // first, so that no file comes after the last was removed
	for i := range secrets {
		all.Go(func() {
			k, err := a.keepFiles(starting, g, &secrets[i], dirs[i])
			mu.Lock()
			defer mu.Unlock()
			if k.Kept != nil {
				kept = append(kept, k)
			}
			if err != nil && len(errs) == 0 {
				errs = append(errs, err) // the others are cancelled because of it
				cancel()
			}
		})
	}
	all.Wait()
	switch {
	case ctx.Err() != nil:
		return nil // told to end
	case len(errs) > 0:
		return errs[0]
	}
	fmt.Fprintln(a.stdout, "ready")
	stop := make(chan struct{})
	all.Go(func() { a.warnOfEnds(kept, stop) })
	<-ctx.Done()
	close(stop)
	all.Wait()
	return nil
}

// keepFiles leases a secret, however long that takes, and has it in its files when it
// returns.
func (a *app) keepFiles(ctx context.Context, g *sallyport.Client, s *agentSecret, dir *secretDir) (keptSecret, error) {
	// The first secret is written here; a change that comes meanwhile comes after it.
	var mu sync.Mutex
	mu.Lock()
	defer mu.Unlock()
	o := sallyport.KeepOptions{
		Lifetime: s.Lifetime,
		Grace:    s.Grace,
		OnError:  func(err error) { a.warnIf(s.Role, err) },
		OnChange: func(ctx context.Context, next *sallyport.Secret) error {
			mu.Lock()
			defer mu.Unlock()
			if err := a.putFiles(ctx, s, dir, next); err != nil {
				return err
			}
			return a.tell(ctx, s)
		},
	}
	leasing, cancel := patiently(ctx)
	defer cancel()
	for {
		k, err := g.Keep(leasing, s.Role, o)
		var e *sallyport.Error
		switch {
		case err == nil:
			current, err := k.Current()
			if err == nil {
				err = a.putFiles(ctx, s, dir, current)
			}
			if err == nil {
				// Whom it is for may not have started yet.
				a.warnIf(s.Role, a.tell(ctx, s))
			}
			return keptSecret{s.Role, k}, err
		case ctx.Err() == nil && errors.As(err, &e) && (e.Reason.Temporary() || e.Reason == sallyport.DeadlineExceeded):
			a.warnIf(s.Role+" is not leased yet", err) // Keep has tried for a minute
		default:
			if ctx.Err() == nil {
				a.warnf("%s is not leased", s.Role)
			}
			return keptSecret{}, err
		}
	}
}

// putFiles puts a secret into its files.
func (a *app) putFiles(ctx context.Context, s *agentSecret, dir *secretDir, from *sallyport.Secret) error {
	for _, name := range slices.Sorted(maps.Keys(s.Files)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := s.selects(name).use(from, func(value []byte) error { return dir.write(name, value) })
		if err != nil {
			return err
		}
	}
	l := from.Lease()
	a.warnf("%s until %s", l.Name, instant(l.Expires))
	return nil
}

// tell does what the configuration wants after a change.
func (a *app) tell(ctx context.Context, s *agentSecret) error {
	o := s.OnChange
	if o.Signal != nil {
		pid, err := o.Signal.process()
		if err != nil {
			return err
		}
		// Nobody is there to be told, if there is no process.
		if pid != 0 {
			if err := syscall.Kill(pid, o.Signal.number); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("signal to process %d: %w", pid, err)
			}
		}
	}
	if len(o.Command) == 0 {
		return nil
	}
	timeout := o.Timeout
	if timeout == 0 {
		timeout = commandTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, o.Command[0], o.Command[1:]...) //nolint:gosec // the configuration names it
	cmd.Env = append(os.Environ(), directoryVariable+"="+s.Directory)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = a.stderr, a.stderr, commandDelay
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("on_change.command: %w", errors.Join(err, ctx.Err()))
	}
	return nil
}
