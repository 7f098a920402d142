package tlog

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/sallyport/sallyport/gateway/audit"
)

// The log's directory, beside the files of package journal:
//
//	tlog/checkpoint              signed tree head, https://c2sp.org/tlog-checkpoint
//	tlog/tile/…                  https://c2sp.org/tlog-tiles
//	tlog/.state/                 Tessera's own
const (
	treeDir        = "tlog"
	checkpointFile = "checkpoint"
	checkpointName = treeDir + "/" + checkpointFile
)

// Checkpoint is the head of the tree of segments.
type Checkpoint struct {
	Size uint64 // number of sealed segments
	Root audit.Hash
}

// text returns the three lines that are signed.
func (c Checkpoint) text(origin string) string {
	return fmt.Sprintf("%s\n%d\n%s\n", origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

func (c Checkpoint) sign(key audit.PrivateKey) ([]byte, error) {
	return note.Sign(&note.Note{Text: c.text(key.Name())}, key)
}

// ParseCheckpoint opens a checkpoint that was signed with key. Cosignatures may
// follow the log's own; they are not looked at.
func ParseCheckpoint(msg []byte, key audit.PublicKey) (Checkpoint, error) {
	n, err := note.Open(msg, note.VerifierList(key))
	if err != nil {
		return Checkpoint{}, err
	}
	for _, s := range n.Sigs {
		if _, err := base64.StdEncoding.Strict().DecodeString(s.Base64); err != nil {
			return Checkpoint{}, errors.New("signature is not in canonical base64")
		}
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 4 {
		return Checkpoint{}, errors.New("not three lines")
	}
	var c Checkpoint
	c.Size, err = strconv.ParseUint(lines[1], 10, 63)
	if err != nil {
		return Checkpoint{}, errors.New("invalid size")
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != len(c.Root) {
		return Checkpoint{}, errors.New("invalid root")
	}
	c.Root = audit.Hash(root)
	if c.text(key.Name()) != n.Text {
		return Checkpoint{}, errors.New("not in canonical form, or of another log")
	}
	return c, nil
}

// readCheckpoint reads the checkpoint of the log in dir.
func readCheckpoint(dir string, key audit.PublicKey) (Checkpoint, error) {
	msg, err := os.ReadFile(filepath.Join(dir, treeDir, checkpointFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Checkpoint{}, broken(checkpointName, "is missing")
	}
	if err != nil {
		return Checkpoint{}, err
	}
	c, err := ParseCheckpoint(msg, key)
	if err != nil {
		return Checkpoint{}, broken(checkpointName, err.Error())
	}
	return c, nil
}

// writeCheckpoint replaces the checkpoint. A crash leaves the old one or the new
// one, and perhaps a temporary file that the next call overwrites.
func writeCheckpoint(dir string, msg []byte) error {
	path := filepath.Join(dir, treeDir, checkpointFile)
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644) //nolint:gosec // a checkpoint is public
	if err != nil {
		return err
	}
	_, err = f.Write(msg)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func broken(file, what string) error {
	return &audit.BrokenError{File: file, What: what}
}
