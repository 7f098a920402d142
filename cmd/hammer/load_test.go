package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/cmd/hammer/internal/target"
)

func TestTally(t *testing.T) {
	var all tally
	if all.verdict() == nil {
		t.Error("a run without an answer passes")
	}
	all.count("a", time.Millisecond, nil)
	all.count("a", 0, &sallyport.Error{Reason: sallyport.Overloaded})
	all.count("b", 0, fmt.Errorf("wrapped: %w", &target.Refusal{Reason: "PERMISSION_DENIED"}))
	all.count("b", 0, errors.New("connection refused"))
	done, failed := all.sums()
	if done != 1 || failed["OVERLOADED"] != 1 || failed["PERMISSION_DENIED"] != 1 || failed["UNAVAILABLE"] != 1 {
		t.Errorf("%d done, failed: %v", done, failed)
	}
	if err := all.verdict(); err != nil {
		t.Error(err)
	}
	all.count("b", 0, same([]byte("x"), []byte("y")))
	if err := all.verdict(); err == nil {
		t.Error("a wrong answer passes")
	}
	var out bytes.Buffer
	if err := all.render(&out); err != nil || !strings.Contains(out.String(), "connection refused") {
		t.Errorf("%v\n%s", err, out.String())
	}
}
