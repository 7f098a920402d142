// Command sallyport is the command line of a Sallyport gateway: what workloads do
// with data, what operators do with keyrings, workloads and policy, and the
// offline verification of the audit trail. docs/cli.md describes it.
//
// Flags, environment and files are read here and nowhere below. What belongs on
// standard output is there and nothing else: the rest, errors included, is on
// standard error.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ends := []os.Signal{syscall.SIGTERM}
	if !signal.Ignored(os.Interrupt) { // as in the background of a script
		ends = append(ends, os.Interrupt)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}
	code := a.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// app is the world that a command lives in.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string

	json    bool // --output json
	started bool // the command line was understood
}

// run runs one command line and gives the exit status.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.command()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if !a.started {
		err = &usageError{err.Error()} // cobra's, about flags and arguments
	}
	return a.report(cmd, err)
}

func (a *app) command() *cobra.Command {
	output := "text"
	root := &cobra.Command{
		Use:   "sallyport",
		Short: "Encrypt and decrypt through a Sallyport gateway, administer it, verify its audit trail",
		Long: `Encrypt and decrypt through a Sallyport gateway, administer it, and verify its audit trail.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 the gateway is not available,
5 something was verified and does not hold.`,
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.NoArgs,
		RunE: needsCommand,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			switch output {
			case "text":
			case "json":
				a.json = true
			default:
				return usagef("--output is json or text")
			}
			a.started = true
			return nil
		},
	}
	root.PersistentFlags().StringVar(&output, "output", output, "form of the output: json or text")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "short for --output json")
	complete(root, "output", "json", "text")
	root.AddCommand(
		a.encryptCommand(), a.decryptCommand(), a.rewrapCommand(),
		a.tenantsCommand(), a.keyringsCommand(), a.workloadsCommand(), a.policyCommand(),
		a.rolesCommand(), a.sourcesCommand(), a.leasesCommand(), a.vaultCommand(),
		a.secretCommand(), a.runCommand(), a.agentCommand(),
		a.auditCommand(), a.versionCommand(),
	)
	return root
}

// group makes a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: needsCommand}
	c.AddCommand(commands...)
	return c
}

// needsCommand stands where cobra would show help and succeed, for mistyped
// commands too.
func needsCommand(c *cobra.Command, _ []string) error {
	return usagef("%s needs one of its commands", c.CommandPath())
}

// complete gives the shell the values that a flag can have.
func complete(c *cobra.Command, flag string, values ...string) {
	// It fails for a flag that does not exist.
	if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err)
	}
}
