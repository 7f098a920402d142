package transport

import (
	"bytes"
	"errors"
	"net/http"
	"testing"
)

// deaf is a client that is gone: writing fails, or what is buffered cannot be sent.
type deaf struct {
	http.ResponseWriter
	write, flush error
}

func (d deaf) Write(p []byte) (int, error) { return len(p), d.write }
func (d deaf) FlushError() error           { return d.flush }

// What is written is wiped, but for a stream's delimiter; what does not reach the client
// is noticed, when it is written or when it is flushed.
func TestRepliesAreWipedAndTheirLossIsNoticed(t *testing.T) {
	gone := errors.New("gone")
	for name, tt := range map[string]struct {
		client deaf
		unsent bool
	}{
		"there": {deaf{}, false}, "gone": {deaf{write: gone}, true}, "gone before the flush": {deaf{flush: gone}, true},
	} {
		x := &exchange{}
		w := wipingWriter{tt.client, x}
		reply, delimiter := []byte("s3cret"), []byte("\n")
		_, _ = w.Write(reply)
		_, _ = w.Write(delimiter)
		_ = http.NewResponseController(w).Flush()
		if !bytes.Equal(reply, make([]byte, 6)) || delimiter[0] != '\n' || x.unsent != tt.unsent {
			t.Errorf("%s: reply %q, delimiter %q, unsent %v", name, reply, delimiter, x.unsent)
		}
	}
}
