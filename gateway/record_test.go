package gateway_test

import (
	"context"
	"log/slog"
	"os"
	"testing"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/tlog"
	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
	"github.com/sallyport/sallyport/gateway/host"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
)

// auditKey is the public key of a gateway's log.
func auditKey(t *testing.T, file string) audit.PublicKey {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	key, err := audit.ParsePublicKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// recordOf checks a receipt against the log on disk, and gives its record.
func recordOf(t *testing.T, gw *gatewaytest.Gateway, receipt string) *auditv1.Record {
	t.Helper()
	r, err := audit.ParseReceipt(receipt)
	if err != nil {
		t.Fatalf("receipt %q: %v", receipt, err)
	}
	in, err := tlog.CheckReceipt(gw.Endpoints.Audit.Dir, auditKey(t, gw.Endpoints.Audit.Key), r)
	if err != nil {
		t.Fatal(err)
	}
	return in.Record
}

// records reads the whole log.
func records(t *testing.T, gw *gatewaytest.Gateway) []*auditv1.Record {
	t.Helper()
	var out []*auditv1.Record
	for e, err := range tlog.Read(t.Context(), gw.Endpoints.Audit.Dir, auditKey(t, gw.Endpoints.Audit.Key), tlog.Filter{}, false) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e.Record)
	}
	return out
}

// startPlain starts a gateway as sallyportd does, from the data that a development
// gateway made: without anything that development adds.
func startPlain(t *testing.T) *gatewaytest.Gateway {
	t.Helper()
	var settings config.Config
	first := gatewaytest.Start(t, gatewaytest.WithConfig(func(c *config.Config) { settings = *c }))
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	h, err := host.Open(t.Context(), settings, host.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- h.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	a := h.Addresses()
	e := &first.Endpoints
	e.GRPC, e.REST, e.Control, e.Ops = a.GRPC, a.REST, a.Control, a.Ops
	return first
}
