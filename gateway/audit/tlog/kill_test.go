//go:build unix

package tlog_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/audittest"
	"github.com/sallyport/sallyport/gateway/audit/tlog"
)

const killVar = "SALLYPORT_TEST_KILLED_LOG"

// TestKill kills a process that appends under load, at random moments, again and
// again. Everything that it had said was acknowledged is there in the end, in its
// place, and sealed once.
func TestKill(t *testing.T) {
	if dir := os.Getenv(killVar); dir != "" {
		appendUntilKilled(t, dir)
		return
	}
	total := 20 * time.Second
	if testing.Short() {
		total = 4 * time.Second
	}
	key := newKey(t)
	dir := create(t, key)
	keyFile := filepath.Join(filepath.Dir(dir), "key")
	if err := os.WriteFile(keyFile, key.Reveal(), 0o600); err != nil {
		t.Fatal(err)
	}
	acknowledged := make(map[uint64]audit.Receipt)
	kills := 0
	for start := time.Now(); time.Since(start) < total; kills++ {
		runAndKill(t, dir, acknowledged, time.Duration(rand.IntN(500)+20)*time.Millisecond)
		if kills%10 == 0 { // what the last one left is in order before anybody repairs it
			verify(t, dir, key)
		}
		if kills%12 == 11 { // and now and then one lives long enough to seal
			runAndKill(t, dir, acknowledged, 1500*time.Millisecond)
		}
	}
	sealed := verify(t, dir, key).Sealed
	closeLog(t, open(t, tlog.Config{Dir: dir, Key: key}))
	r := verify(t, dir, key)
	if r.Sealed != r.Segments || r.Torn != 0 {
		t.Errorf("report %+v", r)
	}
	found := make(map[uint64]audit.Hash)
	for e, err := range tlog.Read(t.Context(), dir, key.Public(), tlog.Filter{}, false) {
		if err != nil {
			t.Fatal(err)
		}
		found[e.Sequence] = e.Hash
	}
	for seq, receipt := range acknowledged {
		if found[seq] != receipt.Record {
			t.Fatalf("acknowledged record %d is lost", seq)
		}
	}
	t.Logf("%d kills, %d records acknowledged, %d found, %d segments, %d of them sealed before the end",
		kills, len(acknowledged), len(found), r.Segments, sealed)
	if len(acknowledged) < 100 || kills < 5 {
		t.Error("too little happened")
	}
}

// runAndKill runs a child for a while and adds the receipts it prints.
func runAndKill(t *testing.T, dir string, acknowledged map[uint64]audit.Receipt, life time.Duration) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), killVar+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(life, func() { cmd.Process.Kill() })
	defer timer.Stop()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), "ack ")
		text, whole := strings.CutSuffix(text, " .")
		if !ok || !whole {
			if strings.Contains(lines.Text(), "FAIL") || strings.Contains(lines.Text(), "_test.go") {
				t.Errorf("child: %s", lines.Text())
			}
			continue
		}
		r, err := audit.ParseReceipt(text)
		if err != nil {
			t.Fatal(err)
		}
		if old, ok := acknowledged[r.Sequence()]; ok {
			t.Fatalf("sequence number %d was given twice: %s and %s", r.Sequence(),
				hex.EncodeToString(old.Record[:]), hex.EncodeToString(r.Record[:]))
		}
		acknowledged[r.Sequence()] = r
	}
	cmd.Wait()
}

// appendUntilKilled is the child.
func appendUntilKilled(t *testing.T, dir string) {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := audit.ParsePrivateKey(b)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tlog.Open(context.Background(), tlog.Config{Dir: dir, Key: key, SegmentAge: 100 * time.Millisecond, SegmentRecords: 500})
	if err != nil {
		t.Fatal(err)
	}
	for w := range 16 {
		go func() {
			for i := 0; ; i++ {
				r, err := l.Append(context.Background(), audittest.Record(w*1_000_000+i))
				if err != nil {
					t.Error(err)
					return
				}
				// One write, at once: what is printed has been acknowledged.
				os.Stdout.WriteString(fmt.Sprintf("ack %s .\n", r))
			}
		}()
	}
	select {}
}
