// Command sallyportd is the gateway. It reads its configuration, opens what the
// configuration names, serves, and stops.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/gateway/lockdown"
	"github.com/sallyport/sallyport/gateway/policy"
)

func main() {
	if err := lockdown.Process(); err != nil {
		fmt.Fprintln(os.Stderr, "sallyportd:", err)
		os.Exit(1)
	}
	host.TuneMemory()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "sallyportd:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use: "sallyportd", Short: "The Sallyport gateway", SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	var file, policies string
	var authorities bool
	serve := &cobra.Command{
		Use: "serve", Short: "Serve until SIGINT or SIGTERM, then drain", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), file) },
	}
	initialize := &cobra.Command{
		Use: "init", Args: cobra.NoArgs,
		Short: "Make the store, the local KEKs and authorities, the audit log and its keys that the configuration names",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return initialize(cmd.Context(), file, policies, authorities)
		},
	}
	initialize.Flags().BoolVar(&authorities, "authorities", false, "make only the local certificate authorities that are missing, also beside a store that is there")
	initialize.Flags().StringVar(&policies, "policy", "", "directory of .cedar files to begin with; without it everything is denied")
	for _, c := range []*cobra.Command{serve, initialize} {
		c.Flags().StringVar(&file, "config", "", "configuration file")
		_ = c.MarkFlagRequired("config") // the flag exists
		root.AddCommand(c)
	}
	check := &cobra.Command{
		Use: "check FILE", Short: "Check a configuration file and list every problem", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return check(cmd, args[0]) },
	}
	parent := &cobra.Command{Use: "config", Short: "Work with the configuration file"}
	parent.AddCommand(check)
	version := &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "sallyportd", host.Version()) },
	}
	root.AddCommand(parent, version)
	return root
}

func readConfig(file string) (config.Config, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return config.Config{}, err
	}
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return config.Config{}, err
	}
	return config.Parse(data, dir)
}

func serve(ctx context.Context, file string) error {
	c, err := readConfig(file)
	if err != nil {
		return err
	}
	h, err := host.Open(ctx, c, host.Options{Logger: logger(c.Log)})
	if err != nil {
		return err
	}
	return h.Serve(ctx)
}

func initialize(ctx context.Context, file, policies string, authorities bool) error {
	c, err := readConfig(file)
	if err != nil {
		return err
	}
	if authorities {
		return host.InitAuthorities(ctx, c)
	}
	var files []policy.File
	if policies != "" {
		if files, err = policy.LoadDir(os.DirFS(policies)); err != nil {
			return err
		}
	}
	return host.Init(ctx, c, files)
}

// check lists what Parse finds, and the files that are not there.
func check(cmd *cobra.Command, file string) error {
	c, err := readConfig(file)
	if err != nil {
		return err
	}
	var missing []error
	for _, f := range c.Files() {
		if _, err := os.Stat(f.Path); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, fmt.Errorf("%s: %s does not exist%s", f.Key, f.Path, f.MadeBy))
		} else if err != nil {
			missing = append(missing, fmt.Errorf("%s: %w", f.Key, err))
		}
	}
	if err := errors.Join(missing...); err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), "ok")
	return nil
}

func logger(l config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		level = slog.LevelInfo // Validate has refused other names
	}
	options := &slog.HandlerOptions{Level: level}
	if l.Format == "text" {
		return slog.New(slog.NewTextHandler(os.Stderr, options))
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, options))
}
