package storetest

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/policy"
)

var archiveErrors = []error{policy.ErrConflict, policy.ErrStore}

// Archive tests an implementation of policy.Archive.
func Archive(t *testing.T, open Opener[policy.Archive]) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Opener[policy.Archive])
	}{
		{"round trip", archiveRoundTrip},
		{"refusals", archiveRefusals},
		{"compare and swap", archiveCompareAndSwap},
		{"one moment", archiveOneMoment},
		{"durable", archiveDurable},
		{"ended contexts", archiveEnded},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open) })
	}
}

// replace stores the bundle in place of the stored revision, and checks what is
// read back.
func replace(t *testing.T, s policy.Archive, b policy.Bundle) policy.Bundle {
	t.Helper()
	revision, err := s.ReplaceBundle(t.Context(), b)
	must(t, err)
	equal(t, revision, b.Revision+1)
	got, err := s.Bundle(t.Context())
	must(t, err)
	b.Revision = revision
	equal(t, got, b)
	return got
}

func archiveRoundTrip(t *testing.T, open Opener[policy.Archive]) {
	s := empty(t, open)
	b, err := s.Bundle(t.Context())
	must(t, err)
	equal(t, b, policy.Bundle{})
	for i, files := range [][]policy.File{
		{{Name: "a.cedar", Content: "permit (principal, action, resource);"}},
		{{Name: "B.cedar", Content: ""}, {Name: "a.cedar", Content: "// é\r\n\x00\t"}, {Name: "b.cedar", Content: strings.Repeat("x", 1<<20)}},
		{{Name: "c.cedar", Content: "forbid (principal, action, resource);"}}, // the others are gone
		nil,
		{{Name: "a.cedar", Content: "again"}},
	} {
		b.Files, b.Loaded = files, at(i)
		b = replace(t, s, b)
	}
	b.Loaded = time.Time{}
	b = replace(t, s, b)

	b.Files = []policy.File{{Name: "z.cedar"}, {Name: "y.cedar"}}
	_, err = s.ReplaceBundle(t.Context(), b)
	must(t, err)
	got, err := s.Bundle(t.Context())
	must(t, err)
	equal(t, got.Files, []policy.File{{Name: "y.cedar"}, {Name: "z.cedar"}}) // in order of name
}

// archiveRefusals checks that what is refused leaves the stored policy alone.
func archiveRefusals(t *testing.T, open Opener[policy.Archive]) {
	s := empty(t, open)
	stored := replace(t, s, policy.Bundle{Files: []policy.File{{Name: "a.cedar", Content: "1"}}, Loaded: at(1)})
	stored.Files[0].Content = "2"
	stored = replace(t, s, stored)
	for _, revision := range []uint64{0, 1, 3, math.MaxUint64} {
		_, err := s.ReplaceBundle(t.Context(), policy.Bundle{Revision: revision, Loaded: at(9)})
		want(t, err, policy.ErrConflict, archiveErrors...)
	}
	// Two files of one name would be two policies, of which one is lost.
	twice := policy.Bundle{Revision: 2, Files: []policy.File{{Name: "t.cedar", Content: "1"}, {Name: "t.cedar", Content: "2"}}}
	_, err := s.ReplaceBundle(t.Context(), twice)
	want(t, err, policy.ErrStore, archiveErrors...)
	got, err := s.Bundle(t.Context())
	must(t, err)
	equal(t, got, stored)
}

func archiveCompareAndSwap(t *testing.T, open Opener[policy.Archive]) {
	s := empty(t, open)
	for revision := range uint64(5) {
		bundle := func(i int) policy.Bundle {
			return policy.Bundle{Revision: revision, Loaded: at(i), Files: []policy.File{{Name: fmt.Sprintf("%d.cedar", i), Content: "x"}}}
		}
		winner := race(t, policy.ErrConflict, func(i int) error {
			_, err := s.ReplaceBundle(t.Context(), bundle(i))
			return err
		})
		expected := bundle(winner)
		expected.Revision++
		got, err := s.Bundle(t.Context())
		must(t, err)
		equal(t, got, expected)
	}
}

// archiveOneMoment checks that files are never read with those, or the revision, of
// another bundle.
func archiveOneMoment(t *testing.T, open Opener[policy.Archive]) {
	s := empty(t, open)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		defer stop()
		for revision := range uint64(100) {
			b := policy.Bundle{Revision: revision, Loaded: at(int(revision) + 1)}
			for i := range 1 + revision%5 {
				b.Files = append(b.Files, policy.File{Name: fmt.Sprintf("%d.cedar", i), Content: fmt.Sprint(revision + 1)})
			}
			if _, err := s.ReplaceBundle(t.Context(), b); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				b, err := s.Bundle(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if b.Revision == 0 {
					continue
				}
				whole := b.Loaded.Equal(at(int(b.Revision))) && len(b.Files) == int(1+(b.Revision-1)%5)
				for _, f := range b.Files {
					whole = whole && f.Content == fmt.Sprint(b.Revision)
				}
				if !whole {
					t.Errorf("mixed bundles: %+v", b)
					return
				}
			}
		})
	}
	wg.Wait()
}

func archiveDurable(t *testing.T, open Opener[policy.Archive]) {
	s, reopen := use(t, open)
	b := replace(t, s, policy.Bundle{Files: []policy.File{{Name: "a.cedar", Content: "x"}}, Loaded: at(1)})
	s = reopen()
	got, err := s.Bundle(t.Context())
	must(t, err)
	equal(t, got, b)
	replace(t, s, b)
}

func archiveEnded(t *testing.T, open Opener[policy.Archive]) {
	s := empty(t, open)
	stored := replace(t, s, policy.Bundle{Files: []policy.File{{Name: "a.cedar", Content: "x"}}, Loaded: at(1)})
	ended(t, []act{
		{"Bundle", func(ctx context.Context) error { _, err := s.Bundle(ctx); return err }},
		{"ReplaceBundle", func(ctx context.Context) error {
			_, err := s.ReplaceBundle(ctx, policy.Bundle{Revision: 1})
			return err
		}},
	}, archiveErrors...)
	got, err := s.Bundle(t.Context())
	must(t, err)
	equal(t, got, stored)
}
