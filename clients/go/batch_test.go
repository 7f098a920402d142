package sallyport_test

import (
	"errors"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/gateway/fault"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
)

// echo seals an item to its own plaintext, and fails the item that says so.
func echo(r *datav1.BatchEncryptRequest) (*datav1.BatchEncryptResponse, error) {
	reply := &datav1.BatchEncryptResponse{Version: 7}
	for _, item := range r.GetItems() {
		result := &datav1.BatchEncryptResponse_Result{Ciphertext: item.GetPlaintext()}
		if string(item.GetPlaintext()) == "bad" {
			result = &datav1.BatchEncryptResponse_Result{Error: &datav1.ItemError{Reason: "INVALID_CONTEXT", Message: "why"}}
		}
		reply.Results = append(reply.Results, result)
	}
	return reply, nil
}

// Requests stay below both limits, fill them as far as they can, and the results
// are in order.
func TestBatchesAreSplit(t *testing.T) {
	const limit = 100_000
	for _, test := range []struct {
		name           string
		items, size    int
		wantRequests   int
		withContextLen int
	}{
		{name: "none", items: 0, wantRequests: 0},
		{name: "one", items: 1, size: 10, wantRequests: 1},
		{name: "as many as are allowed", items: 4096, size: 1, wantRequests: 1},
		{name: "one more", items: 4097, size: 1, wantRequests: 2},
		{name: "by size", items: 50, size: 10_000, wantRequests: 6}, // nine to a request
		{name: "by context", items: 50, size: 1, withContextLen: 10_000, wantRequests: 6},
		{name: "one each", items: 3, size: 99_000, wantRequests: 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			largest := 0
			f := &fake{}
			f.batch = func(r *datav1.BatchEncryptRequest) (*datav1.BatchEncryptResponse, error) {
				largest = max(largest, proto.Size(r))
				if proto.Size(r) > limit || len(r.GetItems()) > sallyport.MaxBatchItems {
					t.Errorf("a request of %d bytes and %d items", proto.Size(r), len(r.GetItems()))
				}
				return echo(r)
			}
			a := newAuthority(t)
			c := dial(t, f.serve(a), a.files(t.TempDir(), a.issue("spiffe://test.example/app")),
				func(o *sallyport.Options) { o.MaxRequestBytes = limit })
			items := make([]sallyport.EncryptItem, test.items)
			for i := range items {
				items[i].Plaintext = fmt.Appendf(make([]byte, 0, test.size+8), "%0*d", test.size, i)
				items[i].Context = map[string]string{"k": string(make([]byte, test.withContextLen))}
			}
			results, err := c.Keyring(ring).BatchEncrypt(t.Context(), items)
			if err != nil || len(results) != len(items) || f.attempts != test.wantRequests {
				t.Fatalf("%d results in %d requests, largest %d: %v", len(results), f.attempts, largest, err)
			}
			for i, r := range results {
				if r.Err != nil || string(r.Ciphertext) != string(items[i].Plaintext) || r.Version != 7 {
					t.Fatalf("item %d: %+v", i, r)
				}
			}
		})
	}
}

func TestBadItemsFailAlone(t *testing.T) {
	f := &fake{batch: echo}
	a := newAuthority(t)
	c := dial(t, f.serve(a), a.files(t.TempDir(), a.issue("spiffe://test.example/app")),
		func(o *sallyport.Options) { o.MaxRequestBytes = 1000 })
	results, err := c.Keyring(ring).BatchEncrypt(t.Context(), []sallyport.EncryptItem{
		{Plaintext: []byte("good")}, {Plaintext: []byte("bad")}, {Plaintext: make([]byte, 2000)}, {Plaintext: []byte("good")},
	})
	if err != nil || f.attempts != 2 {
		t.Fatalf("%v in %d requests", err, f.attempts)
	}
	if results[0].Err != nil || results[3].Err != nil ||
		!errors.Is(results[1].Err, sallyport.InvalidContext) || !errors.Is(results[2].Err, sallyport.RequestTooLarge) {
		t.Errorf("%v", results)
	}
	if results[1].Version != 0 {
		t.Error("an item that failed has a version")
	}
}

// After a request that failed as a whole nothing more is sent, and every item says
// why.
func TestFailedRequestOfABatch(t *testing.T) {
	f := &fake{}
	f.batch = func(r *datav1.BatchEncryptRequest) (*datav1.BatchEncryptResponse, error) {
		if f.attempts == 2 {
			return nil, fault.New(fault.WorkloadDisabled, "")
		}
		return echo(r)
	}
	a := newAuthority(t)
	c := dial(t, f.serve(a), a.files(t.TempDir(), a.issue("spiffe://test.example/app")),
		func(o *sallyport.Options) { o.MaxRequestBytes = 1000 })
	items := make([]sallyport.EncryptItem, 4)
	for i := range items {
		items[i].Plaintext = make([]byte, 900)
	}
	results, err := c.Keyring(ring).BatchEncrypt(t.Context(), items)
	if !errors.Is(err, sallyport.WorkloadDisabled) || f.attempts != 2 || len(results) != 4 || results[0].Err != nil {
		t.Fatalf("%v after %d requests: %v", err, f.attempts, results)
	}
	for _, r := range results[1:] {
		if !errors.Is(r.Err, sallyport.WorkloadDisabled) {
			t.Errorf("%v", r.Err)
		}
	}
}
