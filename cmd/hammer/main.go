// Command hammer loads Sallyport and measures it.
//
// It knows the gateway as any caller does: from outside, through the client library
// and the REST API. docs/performance.md says how to read what it prints.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/cmd/hammer/internal/floor"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "hammer:", err)
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "hammer",
		Short:         "Load Sallyport and measure it",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		newBench(), newLoad(), newChaos(), newSeed(), newStorm(),
		newFloor("floor-grpc", "Serve the gRPC floor: an echo over stock grpc-go", floor.GRPC),
		newFloor("floor-rest", "Serve the REST floor: the echo behind stock grpc-gateway", floor.REST),
	)
	return root
}

// newFloor serves a floor. The benchmark starts it as a process of its own.
func newFloor(name, short string, kind floor.Kind) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return floor.Serve(c.Context(), kind, dir, func() { fmt.Println("ready") })
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "directory for its certificates and endpoints.json")
	_ = c.MarkFlagRequired("dir") // it fails for flags that are not there
	return c
}
