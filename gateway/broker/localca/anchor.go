package localca

import (
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
)

// anchor is all there is to know of a certificate's end. Its text, the handle of a
// lease.Anchor, is the serial number in hexadecimal, "/", and the end in seconds since
// 1970: nobody needs to be asked what became of it.
type anchor struct {
	serial lease.ID
	end    time.Time // in whole seconds
}

// handle gives the text.
func (a anchor) handle() string { return a.serial.String() + "/" + strconv.FormatInt(a.end.Unix(), 10) }

// parseAnchor parses what handle writes and nothing else. What somebody else's source
// made must not be taken for something that has ended; the error is SOURCE_REFUSED.
func parseAnchor(a lease.Anchor) (anchor, error) {
	bad := fault.New(fault.SourceRefused, "not an anchor of this source")
	serial, end, found := strings.Cut(a.Handle, "/")
	if !found || len(a.Handle) > 64 {
		return anchor{}, bad
	}
	seconds, err := strconv.ParseInt(end, 10, 64)
	if err != nil {
		return anchor{}, bad
	}
	id, err := parseSerial(serial)
	if err != nil {
		return anchor{}, bad
	}
	parsed := anchor{id, time.Unix(seconds, 0).UTC()}
	if parsed.handle() != a.Handle {
		return anchor{}, bad
	}
	return parsed, nil
}

// lives reports whether somebody may still accept the certificate: it is valid through
// its last second (RFC 5280 section 4.1.2.5).
func (a anchor) lives(now time.Time) bool { return now.Before(a.end.Add(time.Second)) }
