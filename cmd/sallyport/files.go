package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/pflag"
)

// files are a command's input and output. An output file is written whole or not at
// all, with mode 0600, and does not replace another unless that is asked for.
type files struct {
	app     *app
	in, out string
	force   bool
}

func (f *files) flags(set *pflag.FlagSet) {
	set.StringVar(&f.in, "in", "-", "file to read; - is standard input")
	set.StringVar(&f.out, "out", "", `file to write, with mode 0600; "-" is standard output, even if that is a terminal (default standard output)`)
	set.BoolVar(&f.force, "force", false, "replace output files that exist")
}

// read reads the input whole; the gateway takes it as one message.
func (f *files) read(limit int) ([]byte, error) {
	source := f.app.stdin
	if f.in != "-" {
		file, err := os.Open(f.in)
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }() // it was only read
		source = file
	}
	data, err := io.ReadAll(io.LimitReader(source, int64(limit)+1))
	if err == nil && len(data) > limit {
		err = fmt.Errorf("the input has more than %d bytes", limit)
	}
	return data, err
}

// refuseTerminal refuses to write what is not text to a terminal, unless "--out -"
// asks for it.
func (f *files) refuseTerminal(what, instead string) error {
	if f.out == "" && isTerminal(f.app.stdout) {
		return usagef(`refusing to write %s to a terminal; %s, or "--out -" to force it`, what, instead)
	}
	return nil
}

// isTerminal reports whether w is a character device other than the null device.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&fs.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// printable reports whether data is text that does nothing to a terminal.
func printable(data []byte) bool {
	for _, r := range string(data) {
		if !unicode.IsPrint(r) && r != '\n' && r != '\t' && r != '\r' {
			return false
		}
	}
	return utf8.Valid(data)
}

// checkTarget refuses an output that exists, before the gateway is asked.
func (f *files) checkTarget(path string) error {
	if path == "" || path == "-" || f.force {
		return nil
	}
	if info, err := os.Lstat(path); err == nil && !isDevice(info) {
		return errExists(path)
	}
	return nil
}

func errExists(path string) error { return fmt.Errorf("%s exists; --force replaces it", path) }

func (f *files) write(data []byte) error {
	if f.out == "" || f.out == "-" {
		_, err := f.app.stdout.Write(data)
		return err
	}
	return writeFile(f.out, data, f.force)
}

func (f *files) writeJSON(v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return f.write(append(text, '\n'))
}

// isDevice knows the targets that are written to and not replaced: devices, pipes
// and sockets.
func isDevice(info fs.FileInfo) bool {
	return info.Mode()&(fs.ModeDevice|fs.ModeCharDevice|fs.ModeNamedPipe|fs.ModeSocket) != 0
}

// writeFile writes a file whole or not at all, with mode 0600. A crash leaves at
// most a temporary file beside it.
func writeFile(path string, data []byte, force bool) error {
	if info, err := os.Stat(path); err == nil && isDevice(info) {
		return os.WriteFile(path, data, 0o600)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // fails if it was renamed, as it should
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if force {
		return os.Rename(tmp.Name(), path)
	}
	// A link fails where a file is, without a moment in which one could appear.
	if err := os.Link(tmp.Name(), path); errors.Is(err, fs.ErrExist) {
		return errExists(path)
	} else if err != nil {
		return err
	}
	return nil
}
