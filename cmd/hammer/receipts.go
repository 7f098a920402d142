package main

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	random "math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/sallyport/sallyport/cmd/hammer/internal/target"
)

// place is where a receipt says that a record is, and what it is.
type place struct {
	sequence uint64
	record   string // leaf hash, hexadecimal
}

var errReceipt = errors.New("not a receipt")

// placeOf reads the part of a receipt that says where its record is:
//
//	uint8(len(instance)) || instance || segment 8 || first 8 || count 4 || index 4 || record 32 || …
//
// Whether it is signed is for sallyport audit receipt to tell.
func placeOf(text string) (place, error) {
	encoded, ok := strings.CutPrefix(text, "sp-receipt1.")
	b, err := base64.RawURLEncoding.DecodeString(encoded)
	if !ok || err != nil || len(b) == 0 || len(b) < 1+int(b[0])+56 {
		return place{}, fmt.Errorf("%w: %q", errReceipt, text)
	}
	b = b[1+int(b[0]):]
	first, index := binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint32(b[20:])
	return place{first + uint64(index), hex.EncodeToString(b[24:56])}, nil
}

// checkedOneByOne is how many receipts are also checked by themselves: each takes the
// reading of a segment.
const checkedOneByOne = 20

// checkReceipts looks for the record of every receipt in the log. All of them are
// compared with what the log holds at their place; some, and the last that were
// given, go through the whole check of signature and inclusion.
func (l *ledger) checkReceipts(ctx context.Context, bin string, a target.Audit) error {
	if len(l.receipts) == 0 {
		return errors.New("no call was acknowledged")
	}
	missing := map[uint64]string{}
	for _, text := range l.receipts {
		p, err := placeOf(text)
		if err != nil {
			return err
		}
		if other, ok := missing[p.sequence]; ok && other != p.record {
			return fmt.Errorf("two receipts for different records at sequence %d", p.sequence)
		}
		missing[p.sequence] = p.record
	}
	if err := strikeOff(ctx, bin, a, missing); err != nil {
		return err
	}
	if len(missing) > 0 {
		for sequence, record := range missing {
			return fmt.Errorf("%d acknowledged records are not in the log, for example %s at sequence %d", len(missing), record, sequence)
		}
	}
	for n := range min(checkedOneByOne, len(l.receipts)) {
		text := l.receipts[len(l.receipts)-1-n/2]
		if n%2 == 1 {
			text = l.receipts[random.IntN(len(l.receipts))]
		}
		if _, err := commandLine(ctx, bin, "audit", "receipt", text, "--dir", a.Dir, "--key", a.Key); err != nil {
			return err
		}
	}
	return nil
}

// strikeOff reads the whole log, and removes from missing the records it holds.
func strikeOff(ctx context.Context, bin string, a target.Audit, missing map[uint64]string) error {
	show := exec.CommandContext(ctx, filepath.Join(bin, "sallyport"), "audit", "show", a.Dir, "--key", a.Key, "--output", "json") //nolint:gosec // our own program
	out, err := show.StdoutPipe()
	if err != nil {
		return err
	}
	if err := show.Start(); err != nil {
		return err
	}
	var failed error
	for entries := json.NewDecoder(out); ; {
		var e struct {
			Sequence json.Number `json:"sequence"`
			Hash     string      `json:"hash"`
		}
		if failed = entries.Decode(&e); failed != nil {
			break
		}
		sequence, err := e.Sequence.Int64()
		if err != nil || e.Hash == "" {
			failed = fmt.Errorf("sallyport audit show prints %+v", e)
			break
		}
		if missing[uint64(sequence)] == e.Hash {
			delete(missing, uint64(sequence))
		}
	}
	if errors.Is(failed, io.EOF) {
		failed = nil
	} else {
		_ = show.Process.Kill()
	}
	return errors.Join(failed, show.Wait())
}
