package main

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/crypto/envelope"
)

// dataCommand is what encrypt, decrypt and rewrap have in common.
type dataCommand struct {
	*connection
	files   files
	keyring string
	context []string
	receipt string
	text    bool
}

func (a *app) dataCommand(c *cobra.Command, run func(context.Context, *dataCommand) error) *dataCommand {
	d := &dataCommand{connection: a.connects(c, true), files: files{app: a}}
	c.Args = cobra.NoArgs
	c.RunE = func(c *cobra.Command, _ []string) error { return run(c.Context(), d) }
	f := c.Flags()
	f.StringVar(&d.keyring, "keyring", "", "tenants/{tenant}/keyrings/{keyring} (env SALLYPORT_KEYRING)")
	f.StringArrayVar(&d.context, "context", nil, "name=value of the encryption context; may be repeated")
	f.StringVar(&d.receipt, "receipt", "", "file for the receipt of the call")
	d.files.flags(f)
	return d
}

func (a *app) encryptCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "encrypt --keyring NAME",
		Short: "Encrypt a file or standard input, as a workload",
		Example: `  sallyport encrypt --keyring tenants/acme/keyrings/cards --context customer=17 --in card --out card.sp
  sallyport encrypt --keyring tenants/acme/keyrings/cards --text < card`,
	}
	compact := false
	d := a.dataCommand(c, func(ctx context.Context, d *dataCommand) error {
		if !d.text && !a.json {
			if err := d.files.refuseTerminal("ciphertext", "use --text"); err != nil {
				return err
			}
		}
		plaintext, err := d.files.read(envelope.MaxPlaintext)
		if err != nil {
			return err
		}
		return d.call(ctx, func(ctx context.Context, k sallyport.Keyring, pairs map[string]string) error {
			if compact {
				k = k.Compact()
			}
			sealed, err := k.Encrypt(ctx, plaintext, pairs)
			if err != nil {
				return err
			}
			return d.writeSealed(sealed, d.text)
		})
	})
	c.Flags().BoolVar(&d.text, "text", false, "write the envelope's text form, sp1:…")
	c.Flags().BoolVar(&compact, "compact", false, "make the compact form, for database fields")
	return c
}

func (a *app) decryptCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "decrypt --keyring NAME",
		Short: "Decrypt a file or standard input, as a workload",
		Long: `Decrypt a file or standard input, as a workload. The text form is recognised by itself.

No person can decrypt: the gateway refuses an operator's certificate, whatever the policy says.`,
		Example: `  sallyport decrypt --keyring tenants/acme/keyrings/cards --context customer=17 --in card.sp --out card`,
	}
	a.dataCommand(c, func(ctx context.Context, d *dataCommand) error {
		raw, _, err := d.readEnvelope()
		if err != nil {
			return err
		}
		return d.call(ctx, func(ctx context.Context, k sallyport.Keyring, pairs map[string]string) error {
			opened, err := k.Decrypt(ctx, raw, pairs)
			if err != nil {
				return err
			}
			if err := d.writeReceipt(opened.Receipt); err != nil {
				return err
			}
			if a.json {
				return d.files.writeJSON(struct {
					Plaintext []byte `json:"plaintext"` // base64
					Version   uint32 `json:"version"`
					Receipt   string `json:"receipt"`
				}{opened.Plaintext, opened.Version, opened.Receipt})
			}
			if !printable(opened.Plaintext) {
				if err := d.files.refuseTerminal("a plaintext that is not text", "use --out FILE"); err != nil {
					return err
				}
			}
			return d.files.write(opened.Plaintext)
		})
	})
	return c
}

func (a *app) rewrapCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rewrap --keyring NAME",
		Short: "Move ciphertext to the keyring's primary version, as a workload",
		Long: `Move ciphertext to the keyring's primary version, as a workload. The plaintext does not
leave the gateway. What comes in the text form goes out in it.`,
		Example: `  sallyport rewrap --keyring tenants/acme/keyrings/cards --context customer=17 --in card.sp --out card.sp --force`,
	}
	d := a.dataCommand(c, func(ctx context.Context, d *dataCommand) error {
		raw, wasText, err := d.readEnvelope()
		if err != nil {
			return err
		}
		text := d.text || wasText
		if !text && !a.json {
			if err := d.files.refuseTerminal("ciphertext", "use --text"); err != nil {
				return err
			}
		}
		return d.call(ctx, func(ctx context.Context, k sallyport.Keyring, pairs map[string]string) error {
			sealed, err := k.Rewrap(ctx, raw, pairs)
			if err != nil {
				return err
			}
			return d.writeSealed(sealed, text)
		})
	})
	c.Flags().BoolVar(&d.text, "text", false, "write the envelope's text form, sp1:…")
	return c
}

// call checks what is left of the command line and calls the keyring.
func (d *dataCommand) call(ctx context.Context, f func(context.Context, sallyport.Keyring, map[string]string) error) error {
	pairs, err := pairsOf("context", d.context)
	if err != nil {
		return err
	}
	name := first(d.keyring, d.app.getenv("SALLYPORT_KEYRING"))
	if name == "" {
		return usagef("--keyring is missing")
	}
	if err := errors.Join(d.files.checkTarget(d.files.out), d.files.checkTarget(d.receipt)); err != nil {
		return err
	}
	return d.withData(ctx, func(ctx context.Context, c *sallyport.Client) error { return f(ctx, c.Keyring(name), pairs) })
}

// pairsOf reads the name=value pairs of a flag.
func pairsOf(flag string, list []string) (map[string]string, error) {
	pairs := map[string]string{}
	for _, item := range list {
		name, value, ok := strings.Cut(item, "=")
		if !ok || name == "" {
			return nil, usagef("--%s wants name=value", flag)
		}
		if _, twice := pairs[name]; twice {
			return nil, usagef("--%s names %q twice", flag, name)
		}
		pairs[name] = value
	}
	return pairs, nil
}

// readEnvelope reads an envelope in either form, and reports whether it was text.
func (d *dataCommand) readEnvelope() (raw []byte, text bool, err error) {
	raw, err = d.files.read(2 * envelope.MaxSize)
	if err != nil {
		return nil, false, err
	}
	trimmed := bytes.TrimSpace(raw) // an envelope that is not text begins with no space
	if !bytes.HasPrefix(trimmed, []byte(envelope.TextPrefix)) {
		return raw, false, nil
	}
	raw, err = envelope.DecodeText(string(trimmed))
	return raw, true, err
}

func (d *dataCommand) writeSealed(s sallyport.Sealed, text bool) error {
	if err := d.writeReceipt(s.Receipt); err != nil {
		return err
	}
	form := envelope.EncodeText(s.Ciphertext)
	switch {
	case d.app.json:
		return d.files.writeJSON(struct {
			Ciphertext      string `json:"ciphertext"`
			Version         uint32 `json:"version"`
			PreviousVersion uint32 `json:"previousVersion,omitempty"`
			Receipt         string `json:"receipt"`
		}{form, s.Version, s.PreviousVersion, s.Receipt})
	case text:
		return d.files.write([]byte(form + "\n"))
	default:
		return d.files.write(s.Ciphertext)
	}
}

// writeReceipt writes the receipt before the result, so that whoever has the one
// has the other.
func (d *dataCommand) writeReceipt(receipt string) error {
	if d.receipt == "" {
		return nil
	}
	return writeFile(d.receipt, []byte(receipt+"\n"), d.files.force)
}
