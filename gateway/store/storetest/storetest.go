// Package storetest is what a store must do, as tests: one suite for each interface
// that stores implement. Every implementation runs them, and so may fakes.
package storetest

import (
	"context"
	"errors"
	"io"
	"reflect"
	"sync"
	"testing"
	"time"
)

// Opener opens the store that is kept in dir, and makes it if dir is empty. If the
// store is an io.Closer, the suite closes it; it opens the same dir again only
// after that.
type Opener[S any] func(t *testing.T, dir string) S

// use opens an empty store, and gives a function that closes it and opens it again
// as a restart would.
func use[S any](t *testing.T, open Opener[S]) (S, func() S) {
	t.Helper()
	dir := t.TempDir()
	var end func()
	begin := func() S {
		s := open(t, dir)
		end = sync.OnceFunc(func() {
			if c, ok := any(s).(io.Closer); ok {
				must(t, c.Close())
			}
		})
		t.Cleanup(end)
		return s
	}
	return begin(), func() S {
		end()
		return begin()
	}
}

// empty opens an empty store.
func empty[S any](t *testing.T, open Opener[S]) S {
	t.Helper()
	s, _ := use(t, open)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// want checks that err is the one sentinel of its family, and no other.
func want(t *testing.T, err, sentinel error, family ...error) {
	t.Helper()
	for _, f := range family {
		if got := errors.Is(err, f); got != (f == sentinel) {
			t.Fatalf("got error %v, want only %v", err, sentinel)
		}
	}
}

func equal[T any](t *testing.T, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got\n%+v\nwant\n%+v", got, want)
	}
}

// at gives an instant with nanoseconds, n seconds after a fixed one.
func at(n int) time.Time {
	return time.Date(2031, 2, 3, 4, 5, 6, 123456789, time.UTC).Add(time.Duration(n) * time.Second)
}

// racers is how many compete in a test of compare-and-swap.
const racers = 16

// race lets the racers write at once. Exactly one may win; the others must lose with
// the conflict.
func race(t *testing.T, conflict error, write func(racer int) error) (winner int) {
	t.Helper()
	errs := make([]error, racers)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			<-start
			errs[i] = write(i)
		})
	}
	close(start)
	wg.Wait()
	winner = -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			t.Fatalf("both %d and %d won", winner, i)
		case err == nil:
			winner = i
		case !errors.Is(err, conflict):
			t.Fatalf("a loser got %v, want %v", err, conflict)
		}
	}
	if winner < 0 {
		t.Fatal("nobody won")
	}
	return winner
}

// act is a call of an interface under test.
type act struct {
	name string
	call func(context.Context) error
}

// ended checks that calls under a context that has ended fail with its error, and
// not with one of the family: a caller who hangs up is no failure of the store.
func ended(t *testing.T, acts []act, family ...error) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for _, a := range acts {
		t.Run(a.name, func(t *testing.T) {
			all := append([]error{context.Canceled, context.DeadlineExceeded}, family...)
			want(t, a.call(cancelled), context.Canceled, all...)
			want(t, a.call(late), context.DeadlineExceeded, all...)
		})
	}
}

// pages reads a list page by page, and checks that no page is longer than limit and
// that the reading comes to an end.
func pages[T any](t *testing.T, limit int, page func(last *T) ([]T, error)) []T {
	t.Helper()
	var all []T
	var last *T
	for range 10_000 {
		rows, err := page(last)
		must(t, err)
		if len(rows) > limit {
			t.Fatalf("a page of %d rows, limit %d", len(rows), limit)
		}
		if len(rows) == 0 {
			return all
		}
		all = append(all, rows...)
		last = &rows[len(rows)-1]
	}
	t.Fatal("the pages do not end")
	return nil
}
