package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/tlog"
)

func (a *app) auditCommand() *cobra.Command {
	return group("audit", "Read and verify the audit trail, offline", a.auditVerify(), a.auditShow(), a.auditReceipt())
}

// trail is which log to read, and the key that it is verified with.
type trail struct {
	app          *app
	profile, key string
}

func (a *app) trail(c *cobra.Command) *trail {
	t := &trail{app: a}
	c.Flags().StringVar(&t.key, "key", "", "file of the log's public key (env SALLYPORT_AUDIT_KEY)")
	c.Flags().StringVar(&t.profile, "profile", "", "endpoints.json of a gateway, for directory and key (env SALLYPORT_PROFILE)")
	return t
}

// open settles directory and key by precedence.
func (t *trail) open(dir string) (string, audit.PublicKey, error) {
	p, err := t.app.readProfile(t.profile)
	if err != nil {
		return "", audit.PublicKey{}, err
	}
	dir = first(dir, p.Audit.Dir)
	file := first(t.key, t.app.getenv("SALLYPORT_AUDIT_KEY"), p.Audit.Key)
	if dir == "" || file == "" {
		return "", audit.PublicKey{}, usagef("the log's directory and --key are needed, or --profile")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", audit.PublicKey{}, err
	}
	key, err := audit.ParsePublicKey(text)
	if err != nil {
		return "", key, fmt.Errorf("%s: %w", file, err)
	}
	return dir, key, nil
}

// checkpoint is the JSON form of a tree head.
type checkpoint struct {
	Segments uint64 `json:"segments"`
	Root     string `json:"root"` // base64
}

func checkpointOf(c tlog.Checkpoint) checkpoint {
	return checkpoint{c.Size, base64.StdEncoding.EncodeToString(c.Root[:])}
}

// verification is the JSON form of what verify finds.
type verification struct {
	OK       bool   `json:"ok"`
	Log      string `json:"log"`
	Segments uint64 `json:"segments"`
	Records  uint64 `json:"records"`
	// Those that the checkpoint covers.
	SealedSegments uint64     `json:"sealedSegments"`
	SealedRecords  uint64     `json:"sealedRecords"`
	Checkpoint     checkpoint `json:"checkpoint"`
	TornBytes      int64      `json:"tornBytes"`
	Strays         []string   `json:"strays,omitempty"`
	Broken         *place     `json:"broken,omitempty"`
}

// place is where a log is broken.
type place struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	What   string `json:"what"`
}

func (a *app) auditVerify() *cobra.Command {
	var earlier string
	c := &cobra.Command{
		Use: "verify DIR --key FILE", Short: "Verify every byte of an audit log", Args: cobra.MaximumNArgs(1),
		Long: `Verify every byte of an audit log: the journal's chain of signatures, the transparency log's
tiles and its checkpoint. It needs the files and the log's public key only, and may run while the
gateway writes. Exit status 5 says that the log is broken; the first broken place is shown.

Records that no checkpoint covers yet can be cut off by whoever can write the files, without a
trace here; a receipt, or a checkpoint that was kept from before (--earlier), shows it.`,
	}
	t := a.trail(c)
	c.Flags().StringVar(&earlier, "earlier", "", "checkpoint that was kept from before, which the log must continue")
	c.RunE = func(_ *cobra.Command, args []string) error {
		dir, key, err := t.open(argument(args))
		if err != nil {
			return err
		}
		var opts tlog.VerifyOptions
		if earlier != "" {
			if opts.Earlier, err = os.ReadFile(earlier); err != nil {
				return err
			}
		}
		r, err := tlog.Verify(dir, key, opts)
		var broken *audit.BrokenError
		if err != nil && !errors.As(err, &broken) {
			return err
		}
		return errors.Join(a.printVerification(key.Name(), r, broken), err)
	}
	return c
}

func (a *app) printVerification(log string, r tlog.Report, broken *audit.BrokenError) error {
	v := verification{
		OK: broken == nil, Log: log, Segments: r.Segments, Records: r.Records, SealedSegments: r.Sealed, SealedRecords: r.SealedRecs,
		Checkpoint: checkpointOf(r.Checkpoint), TornBytes: r.Torn, Strays: r.Strays,
	}
	if broken != nil {
		v.Broken = &place{broken.File, broken.Offset, broken.What}
	}
	return a.print(v, func() {
		if broken != nil {
			fmt.Fprintf(a.stdout, "broken: %s\n", log)
			return
		}
		fmt.Fprintf(a.stdout, "ok: %s\nrecords:    %d (%d sealed)\nsegments:   %d (%d sealed)\ncheckpoint: %d %s\n", log,
			r.Records, r.SealedRecs, r.Segments, r.Sealed, v.Checkpoint.Segments, v.Checkpoint.Root)
		if r.Torn > 0 {
			fmt.Fprintf(a.stdout, "torn:       %d bytes of an unfinished batch at the end\n", r.Torn)
		}
		for _, s := range r.Strays {
			fmt.Fprintf(a.stdout, "stray:      %s\n", s)
		}
	})
}

func (a *app) auditReceipt() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "receipt TEXT --dir DIR --key FILE", Short: "Check that the record of a receipt is in the log", Args: cobra.ExactArgs(1),
		Long: `Check that a receipt was signed by the log and that its record is in the files, under the
checkpoint if it is sealed already. TEXT is what came in the trailer sallyport-receipt or the header
Sallyport-Receipt; "-" reads it from standard input.`,
	}
	t := a.trail(c)
	c.Flags().StringVar(&dir, "dir", "", "directory of the log")
	c.RunE = func(_ *cobra.Command, args []string) error {
		text := args[0]
		if text == "-" {
			input, err := io.ReadAll(io.LimitReader(a.stdin, 1<<20))
			if err != nil {
				return err
			}
			text = strings.TrimSpace(string(input))
		}
		dir, key, err := t.open(dir)
		if err != nil {
			return err
		}
		receipt, err := audit.ParseReceipt(text)
		if err != nil {
			return err
		}
		in, err := tlog.CheckReceipt(dir, key, receipt)
		if err != nil {
			return err
		}
		return a.printInclusion(receipt, in)
	}
	return c
}

func (a *app) printInclusion(receipt audit.Receipt, in tlog.Inclusion) error {
	e := tlog.Entry{Sequence: receipt.Sequence(), Segment: receipt.Segment, Hash: receipt.Record, Record: in.Record}
	if a.json {
		line, err := entryJSON(e)
		if err != nil {
			return err
		}
		return a.print(struct {
			OK         bool       `json:"ok"`
			Sealed     bool       `json:"sealed"`
			Checkpoint checkpoint `json:"checkpoint"`
			Entry      any        `json:"entry"`
		}{true, in.Sealed, checkpointOf(in.Checkpoint), line}, nil)
	}
	sealed := "in the journal, not sealed yet"
	if in.Sealed {
		sealed = fmt.Sprintf("sealed, under the checkpoint of %d segments", in.Checkpoint.Size)
	}
	fmt.Fprintf(a.stdout, "ok: record %d of %s is %s\n%s\n", e.Sequence, receipt.Instance, sealed, entryText(e))
	return nil
}

// argument gives the only argument, or "".
func argument(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
