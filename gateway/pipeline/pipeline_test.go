package pipeline_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net/url"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/gateway/audit/audittest"
	"github.com/sallyport/sallyport/gateway/authn"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/identity"
	"github.com/sallyport/sallyport/gateway/pipeline"
	"github.com/sallyport/sallyport/gateway/policy"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
)

// road is a pipeline with two routes whose handlers note that they ran.
type road struct {
	*pipeline.Pipeline
	log              *audittest.Log
	decrypt, rotate  pipeline.Route
	batch            pipeline.Route
	handled          atomic.Int64
	fail             error
	workload, person *authn.Evidence
	stranger         *authn.Evidence
}

const spiffeID = "spiffe://example.org/billing"

type register struct{ authn.Register }

func (register) Workloads(context.Context, string, int) ([]authn.Registration, error) {
	return []authn.Registration{{ID: "billing", SPIFFEID: spiffeID, Enabled: true}}, nil
}

func (register) Revocations(context.Context, authn.Fingerprint, int) ([]authn.Revocation, error) {
	return nil, nil
}

const policyText = `
@id("billing") permit (principal == Sallyport::Workload::"` + spiffeID + `", action, resource in Sallyport::Tenant::"tenants/a")
unless { context.encryption has secret };
@id("operators") permit (principal is Sallyport::Operator, action in Sallyport::Action::"control", resource);
`

func newRoad(t *testing.T) *road {
	t.Helper()
	workloads, people, strangers := newCA(t), newCA(t), newCA(t)
	trust, err := authn.NewTrust(map[string][]byte{"example.org": workloads.pem}, people.pem)
	if err != nil {
		t.Fatal(err)
	}
	authenticator, err := authn.New(t.Context(), trust, register{}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := policy.Compile([]policy.File{{Name: "test.cedar", Content: policyText}})
	if err != nil {
		t.Fatal(err)
	}
	engine := new(policy.Engine)
	engine.Swap(snapshot.At(7))
	r := &road{log: audittest.New()}
	r.routes()
	r.Pipeline, err = pipeline.New(pipeline.Config{
		Authenticator: authenticator, Policy: engine, Log: r.log, PseudonymKey: make([]byte, 32), MaxInFlight: 4,
		Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		Metrics: pipeline.NewMetrics(prometheus.NewRegistry(), []pipeline.Route{r.decrypt, r.rotate, r.batch}),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.workload, r.person, r.stranger = workloads.evidence(t, spiffeID), people.evidence(t, ""), strangers.evidence(t, spiffeID)
	return r
}

func (r *road) routes() {
	r.decrypt = pipeline.Data("sallyport.data.v1.DataService.Decrypt", policy.ActionDecrypt,
		func(req *datav1.DecryptRequest, s *pipeline.Subject) error {
			if err := s.SetKeyring(req.GetName()); err != nil {
				return err
			}
			return s.SetContext(req.GetContext())
		},
		func(_ context.Context, g pipeline.Grant[identity.Workload], req *datav1.DecryptRequest, reply *datav1.DecryptResponse) error {
			r.handled.Add(1)
			reply.Plaintext = bytes.Clone(req.GetCiphertext())
			g.NoteVersion(3)
			g.NoteEnvelope(req.GetCiphertext())
			return r.fail
		})
	r.rotate = pipeline.Effectful("sallyport.control.v1.KeyringService.RotateKeyring", policy.ActionRotateKeyring,
		func(req *controlv1.RotateKeyringRequest, s *pipeline.Subject) error {
			s.Change("etag", req.GetEtag())
			return s.SetKeyring(req.GetName())
		},
		func(context.Context, pipeline.Grant[identity.Caller], *controlv1.RotateKeyringRequest, *controlv1.Keyring) error {
			r.handled.Add(1)
			return r.fail
		})
	r.batch = pipeline.Data("sallyport.data.v1.DataService.BatchEncrypt", policy.ActionBatchEncrypt,
		func(req *datav1.BatchEncryptRequest, s *pipeline.Subject) error {
			if err := s.SetKeyring(req.GetName()); err != nil {
				return err
			}
			return s.SetItems(len(req.GetItems()), func(i int) map[string]string { return req.GetItems()[i].GetContext() })
		},
		func(_ context.Context, g pipeline.Grant[identity.Workload], req *datav1.BatchEncryptRequest, reply *datav1.BatchEncryptResponse) error {
			for i := range req.GetItems() {
				_, f := g.Item(i)
				result := &datav1.BatchEncryptResponse_Result{}
				if f != nil {
					result.Error = &datav1.ItemError{Reason: f.Reason.String()}
				}
				reply.Results = append(reply.Results, result)
				g.NoteItem(i, []byte{byte(i)}, 1, 1, f)
			}
			return nil
		})
}

func ask() *datav1.DecryptRequest {
	return &datav1.DecryptRequest{
		Name: "tenants/a/keyrings/k", Ciphertext: []byte("attack at dawn"), Context: map[string]string{"record": "17"},
	}
}

func reasonOf(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Reason.String()
	}
	return ""
}

func TestAnswerComesWithReceiptAndRecord(t *testing.T) {
	r := newRoad(t)
	reply := new(datav1.DecryptResponse)
	receipt, err := r.Serve(t.Context(), &r.decrypt, r.workload, ask(), reply)
	if err != nil || string(reply.GetPlaintext()) != "attack at dawn" {
		t.Fatalf("%v, %v", reply, err)
	}
	if err := receipt.Verify(r.log.PublicKey()); err != nil {
		t.Errorf("receipt: %v", err)
	}
	records := r.log.Records()
	if len(records) != 1 {
		t.Fatalf("%d records", len(records))
	}
	got := records[0]
	if got.GetCaller() != spiffeID || got.GetResource() != "tenants/a/keyrings/k" || got.GetVersion() != 3 ||
		got.GetDecision() != auditv1.Decision_DECISION_ALLOW || got.GetReason() != "" || got.GetPolicyRevision() != 7 ||
		len(got.GetPolicies()) != 1 || got.GetPolicies()[0] != "test/billing" || len(got.GetEnvelopeDigest()) != 32 ||
		len(got.GetContext()) != 1 || got.GetContext()[0].GetName() != "record" {
		t.Errorf("record: %v", got)
	}
	raw, err := proto.Marshal(got)
	if err != nil || bytes.Contains(raw, []byte("attack")) || bytes.Contains(got.GetContext()[0].GetValueHash(), []byte("17")) {
		t.Errorf("the record holds what was encrypted or a context value: %v", got)
	}
}

func TestRefusals(t *testing.T) {
	r := newRoad(t)
	named := func(name string) *datav1.DecryptRequest {
		req := ask()
		req.Name = name
		return req
	}
	tests := map[string]struct {
		route    *pipeline.Route
		evidence *authn.Evidence
		request  proto.Message
		want     string
		recorded bool
	}{
		"nobody":               {&r.decrypt, nil, ask(), "CERTIFICATE_UNTRUSTED", false},
		"stranger":             {&r.decrypt, r.stranger, ask(), "CERTIFICATE_UNTRUSTED", false},
		"person":               {&r.decrypt, r.person, ask(), "HUMAN_ON_DATA_PLANE", true},
		"person, malformed":    {&r.decrypt, r.person, named("x"), "HUMAN_ON_DATA_PLANE", true},
		"other tenant":         {&r.decrypt, r.workload, named("tenants/b/keyrings/k"), "PERMISSION_DENIED", true},
		"bad name":             {&r.decrypt, r.workload, named("tenants/A/keyrings/k"), "INVALID_ARGUMENT", true},
		"dot segments":         {&r.decrypt, r.workload, named("tenants/a/keyrings/k/../k"), "INVALID_ARGUMENT", true},
		"workload on control":  {&r.rotate, r.workload, &controlv1.RotateKeyringRequest{Name: "tenants/a/keyrings/k"}, "CALLER_KIND_REFUSED", true},
		"context that forbids": {&r.decrypt, r.workload, &datav1.DecryptRequest{Name: "tenants/a/keyrings/k", Context: map[string]string{"secret": "x"}}, "PERMISSION_DENIED", true},
		"context with NUL name length 0": {
			&r.decrypt, r.workload,
			&datav1.DecryptRequest{Name: "tenants/a/keyrings/k", Context: map[string]string{"": "x"}}, "INVALID_CONTEXT", true,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before := len(r.log.Records())
			r.handled.Store(0)
			reply := tt.route.NewReply()
			receipt, err := r.Serve(t.Context(), tt.route, tt.evidence, tt.request, reply)
			if got := reasonOf(err); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if r.handled.Load() != 0 || proto.Size(reply) != 0 {
				t.Error("the handler ran, or the reply is not empty")
			}
			records := r.log.Records()[before:]
			if (len(records) == 1) != tt.recorded || (receipt.Count > 0) != tt.recorded {
				t.Fatalf("%d records, receipt %d", len(records), receipt.Count)
			}
			if tt.recorded && (records[0].GetReason() != tt.want || records[0].GetDecision() != auditv1.Decision_DECISION_DENY) {
				t.Errorf("record: %v", records[0])
			}
		})
	}
}

// No receipt, no reply: whatever the log does wrong, nothing leaves.
func TestNoReceiptNoReply(t *testing.T) {
	for name, failure := range map[string]audittest.Failure{"lost": audittest.Lost, "done but reported lost": audittest.Persisted} {
		t.Run(name, func(t *testing.T) {
			r := newRoad(t)
			r.log.FailNext(failure)
			reply := new(datav1.DecryptResponse)
			receipt, err := r.Serve(t.Context(), &r.decrypt, r.workload, ask(), reply)
			if reasonOf(err) != "AUDIT_UNAVAILABLE" || receipt.Count != 0 || proto.Size(reply) != 0 {
				t.Errorf("%v, %v, %v", receipt, err, reply)
			}
			if _, err := r.Serve(t.Context(), &r.decrypt, r.workload, ask(), reply); err != nil {
				t.Errorf("after the failure: %v", err)
			}
		})
	}
	t.Run("stalled", func(t *testing.T) {
		r := newRoad(t)
		release := r.log.Stall()
		defer release()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		reply := new(datav1.DecryptResponse)
		if _, err := r.Serve(ctx, &r.decrypt, r.workload, ask(), reply); err == nil || proto.Size(reply) != 0 {
			t.Errorf("%v, %v", err, reply)
		}
	})
}

// What reaches beyond the reply is in the log before it is done.
func TestIntentBeforeEffect(t *testing.T) {
	r := newRoad(t)
	req := &controlv1.RotateKeyringRequest{Name: "tenants/a/keyrings/k", Etag: "4"}
	if _, err := r.Serve(t.Context(), &r.rotate, r.person, req, new(controlv1.Keyring)); err != nil {
		t.Fatal(err)
	}
	records := r.log.Records()
	if len(records) != 2 || records[0].GetPhase() != auditv1.Phase_PHASE_INTENT || records[1].GetPhase() != auditv1.Phase_PHASE_OUTCOME ||
		records[0].GetChange()[0] != "etag=4" || !bytes.Equal(records[0].GetRequestId(), records[1].GetRequestId()) {
		t.Fatalf("records: %v", records)
	}

	r.handled.Store(0)
	r.log.FailNext(audittest.Lost)
	_, err := r.Serve(t.Context(), &r.rotate, r.person, req, new(controlv1.Keyring))
	if reasonOf(err) != "AUDIT_UNAVAILABLE" || r.handled.Load() != 0 {
		t.Errorf("without an intent on record: %v, handled %d times", err, r.handled.Load())
	}

	r.fail = errors.New("disk on fire")
	reply := new(controlv1.Keyring)
	_, err = r.Serve(t.Context(), &r.rotate, r.person, req, reply)
	records = r.log.Records()
	if last := records[len(records)-1]; reasonOf(err) != "INTERNAL" || last.GetPhase() != auditv1.Phase_PHASE_OUTCOME || last.GetReason() != "INTERNAL" {
		t.Errorf("a failed deed: %v, record %v", err, last)
	}
}

func TestBatchItemsAreAuthorizedAlone(t *testing.T) {
	r := newRoad(t)
	req := &datav1.BatchEncryptRequest{Name: "tenants/a/keyrings/k", Items: []*datav1.BatchEncryptRequest_Item{
		{}, {Context: map[string]string{"secret": "x"}}, {Context: map[string]string{"": "x"}}, {Context: map[string]string{"a": "b"}},
	}}
	reply := new(datav1.BatchEncryptResponse)
	if _, err := r.Serve(t.Context(), &r.batch, r.workload, req, reply); err != nil {
		t.Fatal(err)
	}
	want := []string{"", "PERMISSION_DENIED", "INVALID_CONTEXT", ""}
	items := r.log.Records()[0].GetItems()
	for i, w := range want {
		if got := reply.GetResults()[i].GetError().GetReason(); got != w || items[i].GetReason() != w {
			t.Errorf("item %d: reply %q, record %q, want %q", i, got, items[i].GetReason(), w)
		}
	}
	req.Items = req.Items[1:2]
	if _, err := r.Serve(t.Context(), &r.batch, r.workload, req, new(datav1.BatchEncryptResponse)); reasonOf(err) != "PERMISSION_DENIED" {
		t.Errorf("nothing but denied items: %v", err)
	}
	req.Items = nil
	if _, err := r.Serve(t.Context(), &r.batch, r.workload, req, new(datav1.BatchEncryptResponse)); reasonOf(err) != "INVALID_ARGUMENT" {
		t.Errorf("no items: %v", err)
	}
}

func TestStrangersAreRecordedInAggregate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoad(t)
		for range 1000 {
			_, _ = r.Serve(t.Context(), &r.decrypt, r.stranger, ask(), new(datav1.DecryptResponse))
		}
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		time.Sleep(pipeline.RefusalInterval + time.Millisecond)
		cancel()
		synctest.Wait()
		records := r.log.Records()
		if len(records) != 1 || records[0].GetCount() != 1000 || records[0].GetReason() != "CERTIFICATE_UNTRUSTED" {
			t.Errorf("records: %v", records)
		}
	})
}

func TestTooManyAtOnceAreRefused(t *testing.T) {
	r := newRoad(t)
	release := r.log.Stall()
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 5)
	for range 5 {
		go func() {
			_, err := r.Serve(ctx, &r.decrypt, r.workload, ask(), new(datav1.DecryptResponse))
			done <- err
		}()
	}
	if err := <-done; reasonOf(err) != "OVERLOADED" {
		t.Errorf("got %v", err)
	}
	release()
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newCA(t *testing.T) ca {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return ca{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (c ca) evidence(t *testing.T, uri string) *authn.Evidence {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "alice"}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if uri != "" {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = []*url.URL{u}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, &c.key.PublicKey, c.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authn.NewEvidence(tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{leaf}})
}
