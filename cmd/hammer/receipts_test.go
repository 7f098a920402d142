package main

import (
	"encoding/hex"
	"errors"
	"testing"

	"github.com/sallyport/sallyport/gateway/audit"
)

// TestPlaceOf reads what the gateway writes.
func TestPlaceOf(t *testing.T) {
	r := audit.Receipt{Instance: "example.org/gateway", Segment: 3, First: 1000, Count: 8, Index: 5, Path: make([]audit.Hash, 3)}
	for i := range r.Record {
		r.Record[i] = byte(i)
	}
	p, err := placeOf(r.String())
	if err != nil || p.sequence != r.Sequence() || p.record != hex.EncodeToString(r.Record[:]) {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []string{"", "sp-receipt1.", "sp-receipt1.AAAA", "sp-receipt2." + r.String()[12:], "x" + r.String()} {
		if _, err := placeOf(bad); !errors.Is(err, errReceipt) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
