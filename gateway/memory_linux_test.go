package gateway_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

// Plaintext that has been answered may stay in buffers of TLS and HTTP until they
// are used again: those are not ours, and threat-model.md says so. What is ours is
// wiped, so that more calls do not leave more copies (experiment X8, where five
// calls left nine). Measured here after 400 calls: 0 to 4 copies, and about 50 under
// the race detector, whose sync.Pool forgets buffers on purpose; before the wiping
// of small buffers and of written replies, 150 to 290.
func TestPlaintextInMemory(t *testing.T) {
	t.Parallel()
	c := startChild(t, t.TempDir())
	const calls, few = 200, 100
	for protocol, ask := range doors(t, c.gw, c.gw.Endpoints.Workload) {
		secret := newCanary()
		for range calls {
			if got := ask.must(t, decrypt(ask.must(t, encrypt(string(secret), here)), here)); string(got) != string(secret) {
				t.Fatalf("decrypted to %q", got)
			}
		}
		for _, form := range []string{"as it is", "in base64 0"} {
			left := c.copies(t, secret.forms()[form])
			t.Logf("%s: %d copies %s after %d calls", protocol, left, form, 2*calls)
			if left > few {
				t.Errorf("%s: %d copies %s are left of %d calls", protocol, left, form, 2*calls)
			}
		}
	}
	if c.copies(t, []byte(c.gw.Dir)) == 0 {
		t.Error("the scan does not find what is certainly there")
	}
}

// copies counts how often a text is in the child's writable memory.
func (c child) copies(t *testing.T, text []byte) (n int) {
	t.Helper()
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", c.Process.Pid))
	must(t, err)
	defer maps.Close()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", c.Process.Pid))
	must(t, err)
	defer mem.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") || to-from > 1<<29 {
			continue // what is so large is the race detector's
		}
		data := make([]byte, to-from)
		if got, _ := mem.ReadAt(data, from); got > 0 { // some pages cannot be read
			n += bytes.Count(data[:got], text)
		}
	}
	return n
}
