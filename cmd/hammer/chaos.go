package main

import (
	"context"
	"errors"
	"fmt"
	random "math/rand/v2"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/cmd/hammer/internal/loop"
)

// chaos kills a gateway under load, again and again, and then looks for what was
// promised.
type chaos struct {
	bin, dir string
	rounds   int
	callers  int
	longest  time.Duration
	keep     bool

	ledger ledger
	starts int // that were cut off before the gateway was ready
}

func newChaos() *cobra.Command {
	x := &chaos{}
	c := &cobra.Command{
		Use: "chaos", Short: "Kill a gateway under load, and check that nothing acknowledged is lost", Args: cobra.NoArgs,
		Long: `Kill a gateway under load, and check that nothing acknowledged is lost.

Each round starts a development gateway on the same directory, loads it, and kills it
(SIGKILL) at a moment of chance; every third round it is also killed while it starts.
At the end every envelope that a caller was given must open, the audit log must verify,
and every receipt that a caller was given must be in it.`,
		RunE: func(c *cobra.Command, _ []string) error { return x.run(c.Context()) },
	}
	f := c.Flags()
	f.StringVar(&x.bin, "bin", beside(), "folder of sallyport-dev and sallyport")
	f.StringVar(&x.dir, "dir", "build", "where to make the run's directory")
	f.IntVar(&x.rounds, "rounds", 20, "how often to kill")
	f.IntVar(&x.callers, "callers", 16, "callers at once")
	f.DurationVar(&x.longest, "longest", time.Second, "longest time from the gateway's readiness to its end")
	f.BoolVar(&x.keep, "keep", false, "keep the run's directory, which also stays when something is lost")
	return c
}

func (x *chaos) run(ctx context.Context) error {
	if err := os.MkdirAll(x.dir, 0o700); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(x.dir, "chaos-")
	if err != nil {
		return err
	}
	x.dir = dir
	for n := range x.rounds {
		if n%3 == 2 {
			if err := x.killStart(ctx); err != nil {
				return err
			}
		}
		before := x.ledger.size()
		if err := x.round(ctx); err != nil {
			return x.lost(err)
		}
		fmt.Fprintf(os.Stderr, "round %d of %d: %d calls acknowledged\n", n+1, x.rounds, x.ledger.size()-before)
	}
	if err := x.check(ctx); err != nil {
		return x.lost(err)
	}
	fmt.Printf("%d kills under load and %d during the start; %d calls acknowledged, none lost\n", x.rounds, x.starts, x.ledger.size())
	if x.keep {
		return nil
	}
	return os.RemoveAll(x.dir)
}

func (x *chaos) lost(err error) error {
	return fmt.Errorf("%w; what there is is in %s", err, x.dir)
}

// killStart kills a gateway that is starting, or has just started: recovery must bear
// being interrupted.
func (x *chaos) killStart(ctx context.Context) error {
	const longest = 200 * time.Millisecond
	short, cancel := context.WithTimeout(ctx, random.N(longest))
	defer cancel()
	g, err := startGateway(short, x.bin, x.dir)
	if err == nil {
		g.Kill()
		return nil
	}
	if short.Err() == nil || ctx.Err() != nil {
		return err // it did not start, and that is not our doing
	}
	x.starts++
	return nil
}

// round loads a gateway and kills it.
func (x *chaos) round(ctx context.Context) error {
	g, err := startGateway(ctx, x.bin, x.dir)
	if err != nil {
		return err
	}
	defer g.Kill()
	client, err := g.Dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	keyring := client.Keyring(demoKeyring)

	load, stop := context.WithCancel(ctx)
	defer stop()
	kill := time.AfterFunc(random.N(x.longest), func() {
		g.Kill()
		stop()
	})
	defer kill.Stop()
	var wrong error
	r := loop.Run(load, x.callers, x.longest+time.Minute, func(ctx context.Context, _ int) error {
		err := x.ledger.call(ctx, keyring)
		if errors.Is(err, errWrong) {
			stop()
		}
		return err
	})
	if errors.Is(r.Err, errWrong) {
		wrong = r.Err
	}
	return errors.Join(wrong, ctx.Err())
}

// check looks for everything that was acknowledged.
func (x *chaos) check(ctx context.Context) error {
	say("opening every envelope")
	g, err := startGateway(ctx, x.bin, x.dir)
	if err != nil {
		return err
	}
	defer g.Stop()
	client, err := g.Dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	if err := x.ledger.openAll(ctx, client.Keyring(demoKeyring)); err != nil {
		return err
	}
	g.Stop()
	say("verifying the audit log")
	if _, err := commandLine(ctx, x.bin, "audit", "verify", g.Audit.Dir, "--key", g.Audit.Key); err != nil {
		return err
	}
	say("looking for %d receipts", x.ledger.size())
	return x.ledger.checkReceipts(ctx, x.bin, g.Audit)
}
