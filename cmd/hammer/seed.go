package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/cmd/hammer/internal/loop"
	"github.com/sallyport/sallyport/cmd/hammer/internal/target"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

func newSeed() *cobra.Command {
	var endpoints string
	var count, callers int
	c := &cobra.Command{
		Use: "seed", Short: "Make many keyrings, as an operator", Args: cobra.NoArgs,
		Long: `Make many keyrings, as an operator, over the control plane.

Each is made the way an operator makes one: its key is wrapped by the KEK, and it is on
record. The gateway's limits on KMS calls apply, in all and for each tenant, so the
keyrings are spread over tenants; those that are there already are left alone.`,
		RunE: func(c *cobra.Command, _ []string) error {
			e, err := target.ReadEndpoints(endpoints)
			if err != nil {
				return err
			}
			start := time.Now()
			if err := seed(c.Context(), e, count, callers); err != nil {
				return err
			}
			fmt.Printf("%d keyrings in %v\n", count, time.Since(start).Round(time.Millisecond))
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&endpoints, "endpoints", "", "the gateway's endpoints.json (required)")
	f.IntVar(&count, "keyrings", 1000, "how many")
	f.IntVar(&callers, "callers", 32, "callers at once")
	_ = c.MarkFlagRequired("endpoints") // it fails for flags that are not there
	return c
}

// seedTenants share the keyrings that are made.
const seedTenants = 16

// seed makes keyrings seed-00000000 and on.
func seed(ctx context.Context, e target.Endpoints, count, callers int) error {
	control, err := e.DialControl(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = control.Close() }()
	for i := range min(seedTenants, count) {
		_, err := control.Keyrings.CreateTenant(ctx, &controlv1.CreateTenantRequest{TenantId: seedTenant(i)})
		if err != nil && !errors.Is(err, sallyport.AlreadyExists) {
			return err
		}
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var next atomic.Int64
	loop.Run(ctx, callers, forever, func(ctx context.Context, _ int) error {
		i := int(next.Add(1)) - 1
		if i >= count {
			stop(nil)
			return nil
		}
		if err := seedKeyring(ctx, control, i); err != nil {
			stop(err)
		}
		return nil
	})
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// forever is longer than any run.
const forever = 1000 * time.Hour

func seedTenant(i int) string { return fmt.Sprintf("seed-%02d", i%seedTenants) }

// seedKeyring makes a keyring, and waits when the gateway says that it makes too many.
func seedKeyring(ctx context.Context, control *sallyport.Control, i int) error {
	const pause = 50 * time.Millisecond
	for {
		_, err := control.Keyrings.CreateKeyring(ctx, &controlv1.CreateKeyringRequest{
			Parent: "tenants/" + seedTenant(i), KeyringId: fmt.Sprintf("seed-%08d", i),
			Purpose: controlv1.Purpose_PURPOSE_AEAD,
		})
		switch {
		case errors.Is(err, sallyport.KEKThrottled):
			time.Sleep(pause)
		case errors.Is(err, sallyport.AlreadyExists):
			return nil
		default:
			return err
		}
	}
}

// manyKeyrings fills the store, and measures again what must not depend on how much
// is in it.
func (b *bench) manyKeyrings(ctx context.Context) error {
	say("making %d keyrings", b.keyrings)
	if err := b.fill(ctx, b.gateway, b.keyrings); err != nil {
		return err
	}
	b.stop()
	say("starting the gateway, %d times", coldStarts)
	if err := b.restarts(ctx, b.keyrings); err != nil {
		return err
	}
	if err := b.connect(ctx); err != nil {
		return err
	}
	c := b.cells()[0]
	c.keyrings = b.keyrings
	say("%s, %d callers, %d keyrings", c.work.Op, c.callers, b.keyrings)
	rows, err := c.measure(ctx, b.rounds, b.duration)
	if err != nil {
		return err
	}
	return b.report.add(rows...)
}
