package journal

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/audit"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
)

// FuzzScan: whatever a file holds, scanning it ends, with a typed error or a
// segment that is within the file; and what it accepts was signed.
func FuzzScan(f *testing.F) {
	// The same key in every process of the fuzzer, for its inputs to mean something.
	key, err := audit.ParsePrivateKey([]byte("PRIVATE+KEY+audit.example/fuzz+15c8ac8a+AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"))
	if err != nil {
		f.Fatal(err)
	}
	fsys := newMemFS(key.Name())
	j, err := Open(Config{FS: fsys, Key: key, SegmentAge: time.Hour})
	if err != nil {
		f.Fatal(err)
	}
	for range 3 {
		if _, err := j.Append(context.Background(), &auditv1.Record{Action: "a"}); err != nil {
			f.Fatal(err)
		}
	}
	open, _ := fsys.ReadFile(SegmentPath(0))
	f.Add(open[:2000])
	j.Close(context.Background())
	closed, _ := fsys.ReadFile(SegmentPath(0))
	f.Add(closed)
	f.Add(closed[:len(closed)/2])
	f.Add([]byte(headerMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Scan("x", 0, data, key.Public(), func(f *Frame) error {
			for range f.Records() {
			}
			return nil
		})
		if err != nil {
			if !errors.Is(err, audit.ErrBroken) && !errors.Is(err, ErrNewerFormat) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if s.End < 0 || s.End+s.Torn > int64(len(data)) || s.Size != int64(len(data)) {
			t.Fatalf("%+v is not within %d bytes", s, len(data))
		}
		if s.End > 0 && string(data[:s.End]) != string(closed[:min(int(s.End), len(closed))]) {
			t.Fatal("accepts what was not signed")
		}
	})
}
