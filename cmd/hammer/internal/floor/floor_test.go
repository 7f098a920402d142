package floor

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/cmd/hammer/internal/loop"
	"github.com/sallyport/sallyport/cmd/hammer/internal/target"
)

const keyring = "tenants/demo/keyrings/default"

// TestServe asks the floors everything that the benchmark asks them.
func TestServe(t *testing.T) {
	for name, test := range map[string]struct {
		kind   Kind
		client func(context.Context, target.Endpoints) (target.Client, error)
	}{
		"grpc": {GRPC, func(ctx context.Context, e target.Endpoints) (target.Client, error) {
			return target.NewGRPC(ctx, e, keyring)
		}},
		"rest": {REST, func(_ context.Context, e target.Endpoints) (target.Client, error) {
			return target.NewREST(e, keyring, 2, false)
		}},
		"rest over HTTP/2": {REST, func(_ context.Context, e target.Endpoints) (target.Client, error) {
			return target.NewREST(e, keyring, 2, true)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			e := serve(t, test.kind)
			c, err := test.client(t.Context(), e)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, w := range []target.Work{
				{Op: target.Encrypt, Size: 1024},
				{Op: target.Decrypt, Size: 1024},
				{Op: target.Encrypt, Size: 16, Context: target.FreshContext},
				{Op: target.BatchEncrypt, Size: 100, Items: 1000},
				{Op: target.BatchDecrypt, Size: 100, Items: 1000, Context: target.NoContext},
			} {
				call, err := w.Call(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				if r := loop.Run(t.Context(), 2, 10*time.Millisecond, call); r.Failed > 0 || r.Ops == 0 {
					t.Errorf("%s: %d succeeded, %d failed: %v", w.Op, r.Ops, r.Failed, r.Err)
				}
			}
			m, err := e.ReadMetrics(t.Context())
			if err != nil || m[target.Mallocs] == 0 {
				t.Errorf("%v allocations, %v", m[target.Mallocs], err)
			}
		})
	}
}

// serve runs a floor until the test ends.
func serve(t *testing.T, kind Kind) target.Endpoints {
	t.Helper()
	dir := t.TempDir()
	ctx, stop := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- Serve(ctx, kind, dir, func() { close(ready) }) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- nil
		t.Fatal(err)
	}
	e, err := target.ReadEndpoints(filepath.Join(dir, target.FileName))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// A caller without a certificate of the floor's authority is not served: otherwise
// the handshake would not be the one that Sallyport makes.
func TestStrangersAreNotServed(t *testing.T) {
	for _, kind := range []Kind{GRPC, REST} {
		e, other := serve(t, kind), serve(t, kind)
		e.Workload = other.Workload
		var c target.Client
		var err error
		if kind == GRPC {
			c, err = target.NewGRPC(t.Context(), e, keyring)
		} else {
			c, err = target.NewREST(e, keyring, 1, false)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Encrypt(t.Context(), target.Item{Data: []byte("x")}); err == nil {
			t.Errorf("%s: a stranger was served", kind)
		}
	}
}
