package gateway_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport/sallyport/crypto/delivery"
	"github.com/sallyport/sallyport/gateway/audit/tlog"
	"github.com/sallyport/sallyport/gateway/development"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

func secretsOf(t *testing.T, gw *gatewaytest.Gateway, p development.Pair) secretsv1.SecretServiceClient {
	t.Helper()
	return secretsv1.NewSecretServiceClient(dial(t, gw, gw.Endpoints.GRPC, p))
}

func leasesOf(t *testing.T, gw *gatewaytest.Gateway) controlv1.LeaseServiceClient {
	t.Helper()
	return controlv1.NewLeaseServiceClient(dial(t, gw, gw.Endpoints.Control, gw.Endpoints.Operator))
}

// startWithVault starts a gateway over a real Vault, with the role db.
func startWithVault(t *testing.T, options ...gatewaytest.Option) (*vaultWorld, *gatewaytest.Gateway) {
	t.Helper()
	w := newVaultWorld(t)
	gw := gatewaytest.Start(t, append(options, gatewaytest.WithConfig(w.change))...)
	role(t, gw, "db", "vault", database("app"))
	w.allow(t, gw)
	return w, gw
}

// The life of a credential, as PostgreSQL, the caller and an operator see it: it works
// when it is leased, goes on when it is renewed, and is gone when it is revoked.
func TestLifeOfALease(t *testing.T) {
	t.Parallel()
	w, gw := startWithVault(t)
	client, ctx := secretsOf(t, gw, gw.Endpoints.Workload), t.Context()
	var trailer metadata.MD
	reply, err := client.LeaseSecret(ctx, &secretsv1.LeaseSecretRequest{Name: databaseRole, Lifetime: durationpb.New(5 * time.Minute)}, grpc.Trailer(&trailer))
	must(t, err)
	l, fields := reply.GetLease(), reply.GetPlaintext().GetFields()
	user, password := string(fields["username"]), string(fields["password"])
	must(t, w.postgres.Login(user, password))
	if !slices.Contains(w.usernames(), user) || len(trailer.Get("sallyport-receipt")) != 1 {
		t.Errorf("%s is not a role of PostgreSQL, or there is no receipt: %v", user, trailer)
	}
	if left := time.Until(l.GetExpireTime().AsTime()); left > 5*time.Minute || left < 4*time.Minute {
		t.Errorf("asked for 5 minutes, got %v", left)
	}
	renewed, err := client.RenewLease(ctx, &secretsv1.RenewLeaseRequest{Name: l.GetName(), Lifetime: durationpb.New(20 * time.Minute)})
	must(t, err)
	if left := time.Until(renewed.GetExpireTime().AsTime()); left > 20*time.Minute || left < 19*time.Minute {
		t.Errorf("renewed for 20 minutes, got %v", left)
	}
	list, err := client.ListLeases(ctx, &secretsv1.ListLeasesRequest{Parent: "tenants/demo"})
	must(t, err)
	if len(list.GetLeases()) != 1 || !proto.Equal(list.GetLeases()[0], renewed) {
		t.Errorf("listed %v, want %v", list, renewed)
	}
	seen, err := leasesOf(t, gw).InspectLease(ctx, &controlv1.InspectLeaseRequest{Name: l.GetName()})
	must(t, err)
	if !proto.Equal(seen, renewed) || seen.GetWorkload() != development.DemoWorkload {
		t.Errorf("the operator sees %v, want %v", seen, renewed)
	}
	gone, err := client.RevokeLease(ctx, &secretsv1.RevokeLeaseRequest{Name: l.GetName()})
	must(t, err)
	if gone.GetState() != secretsv1.LeaseState_LEASE_STATE_GONE || len(w.usernames()) != 0 || w.postgres.Login(user, password) == nil {
		t.Errorf("after the revocation: %v, roles %v", gone.GetState(), w.usernames())
	}
	must(t, gw.Stop())
	checkRecords(t, gw, l.GetName())
}

// checkRecords checks that the effects on a lease are in the log twice, intended and
// done, and looks at it once.
func checkRecords(t *testing.T, gw *gatewaytest.Gateway, name string) {
	t.Helper()
	var got []string
	for e, err := range tlog.Read(t.Context(), gw.Endpoints.Audit.Dir, auditKey(t, gw.Endpoints.Audit.Key), tlog.Filter{}, false) {
		must(t, err)
		r := e.Record
		action := r.GetAction()[strings.LastIndexByte(r.GetAction(), '.')+1:]
		if r.GetLease() == name || r.GetResource() == name || r.GetPhase() == auditv1.Phase_PHASE_INTENT && action == "LeaseSecret" {
			got = append(got, action+" "+strings.TrimPrefix(r.GetPhase().String(), "PHASE_"))
		}
	}
	want := []string{
		"LeaseSecret INTENT", "LeaseSecret OUTCOME", "RenewLease INTENT", "RenewLease OUTCOME",
		"InspectLease CALL", "RevokeLease INTENT", "RevokeLease OUTCOME",
	}
	if !slices.Equal(got, want) {
		t.Errorf("on record: %v\nwant %v", got, want)
	}
}

// A sealed value opens with the recipient's key, for this lease and this workload, and
// is nowhere in clear: not on the wire, not in the store, the journal or the log.
func TestSealedDelivery(t *testing.T) {
	t.Parallel()
	log := &output{}
	w, gw := startWithVault(t, gatewaytest.WithLogger(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	client := secretsOf(t, gw, gw.Endpoints.Workload)
	key, err := delivery.GenerateKey(delivery.MLKEM768X25519)
	must(t, err)
	certificate, err := tls.LoadX509KeyPair(gw.Endpoints.Workload.Cert, gw.Endpoints.Workload.Key)
	must(t, err)
	ec, err := certificate.PrivateKey.(*ecdsa.PrivateKey).ECDH()
	must(t, err)
	own, err := delivery.NewPrivateKey(ec)
	must(t, err)
	for name, tt := range map[string]struct {
		to  *secretsv1.Recipient
		key *delivery.PrivateKey
	}{
		"a fresh key":           {&secretsv1.Recipient{Kem: secretsv1.Kem_KEM_MLKEM768_X25519, PublicKey: key.PublicKey()}, key},
		"the certificate's own": {&secretsv1.Recipient{CertificateKey: true}, own},
	} {
		reply, err := client.LeaseSecret(t.Context(), &secretsv1.LeaseSecretRequest{Name: databaseRole, Recipient: tt.to})
		must(t, err)
		sealed, bound := reply.GetSealed(), delivery.Binding{Lease: reply.GetLease().GetName(), Workload: development.DemoWorkload}
		if reply.GetPlaintext() != nil || sealed == nil {
			t.Fatalf("%s: the value is not sealed", name)
		}
		opened, err := tt.key.Open(bound, sealed.GetEnc(), sealed.GetCiphertext())
		must(t, err)
		var fields secretsv1.SecretFields
		must(t, proto.Unmarshal(opened, &fields))
		must(t, w.postgres.Login(string(fields.GetFields()["username"]), string(fields.GetFields()["password"])))
		bound.Workload += "x"
		if _, err := tt.key.Open(bound, sealed.GetEnc(), sealed.GetCiphertext()); err == nil {
			t.Errorf("%s: it opens for another workload", name)
		}
		password := canary(fields.GetFields()["password"])
		wire, err := proto.Marshal(reply)
		must(t, err)
		password.absent(t, "the reply", wire)
		password.absent(t, "the gateway's log", log.bytes())
		places := map[string][]byte{}
		collect(t, gw.Dir, places)
		for place, content := range places {
			password.absent(t, place, content)
		}
	}
}

// A watch renews while it can, replaces before the end, and ends with the lease; every
// message has a receipt. The same over REST.
func TestWatch(t *testing.T) {
	t.Parallel()
	w, gw := startWithVault(t)
	role(t, gw, "brief", "vault", database("app"), func(r *controlv1.CreateSecretRoleRequest) {
		r.MaxLifetime, r.DefaultLifetime = durationpb.New(12*time.Second), durationpb.New(4*time.Second)
	})
	w.allow(t, gw)
	client := secretsOf(t, gw, gw.Endpoints.Workload)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	first, err := client.LeaseSecret(ctx, &secretsv1.LeaseSecretRequest{Name: "tenants/demo/secretRoles/brief"})
	must(t, err)
	user, password := string(first.GetPlaintext().GetFields()["username"]), string(first.GetPlaintext().GetFields()["password"])
	stream, err := client.WatchLease(ctx, &secretsv1.WatchLeaseRequest{Name: first.GetLease().GetName()})
	must(t, err)
	renewals := 0
	end := first.GetLease().GetExpireTime().AsTime()
	for {
		m, err := stream.Recv()
		must(t, err)
		if m.GetReceipt() == "" {
			t.Error("a message without a receipt")
		}
		if m.GetPlaintext() != nil {
			// The replacement is here, and what it replaces works.
			must(t, w.postgres.Login(user, password))
			fields := m.GetPlaintext().GetFields()
			must(t, w.postgres.Login(string(fields["username"]), string(fields["password"])))
			if m.GetLease().GetName() == first.GetLease().GetName() {
				t.Error("the replacement is the same lease")
			}
			_, err := client.RevokeLease(ctx, &secretsv1.RevokeLeaseRequest{Name: m.GetLease().GetName()})
			must(t, err)
			break
		}
		if now := m.GetLease().GetExpireTime().AsTime(); now.After(end) {
			renewals, end = renewals+1, now
		}
	}
	if renewals == 0 {
		t.Error("nothing was renewed before it was replaced")
	}
	var last *secretsv1.Lease
	for {
		m, err := stream.Recv()
		if err != nil {
			break
		}
		last = m.GetLease()
	}
	if s := last.GetState(); s != secretsv1.LeaseState_LEASE_STATE_GONE && s != secretsv1.LeaseState_LEASE_STATE_REVOKING {
		t.Errorf("the stream ended with a lease that is %v", s)
	}
	watchOverREST(t, gw)
}

// watchOverREST reads a watch line by line until the lease is revoked.
func watchOverREST(t *testing.T, gw *gatewaytest.Gateway) {
	t.Helper()
	name := leaseOf(t, gw, gw.Endpoints.Workload, databaseRole)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+gw.Endpoints.REST+"/v1/"+name+":watch", strings.NewReader("{}"))
	must(t, err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := browser(t, gw, gw.Endpoints.Workload).Do(req)
	must(t, err)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i, want := range []string{"LEASE_STATE_ACTIVE", "LEASE_STATE_"} {
		if !lines.Scan() {
			t.Fatalf("the stream ended before line %d: %v", i+1, lines.Err())
		}
		var line struct {
			Result struct {
				Lease   struct{ Name, State string }
				Receipt string
			}
		}
		must(t, json.Unmarshal(lines.Bytes(), &line))
		if line.Result.Lease.Name != name || !strings.HasPrefix(line.Result.Lease.State, want) || line.Result.Receipt == "" {
			t.Errorf("line %d: %s", i+1, lines.Text())
		}
		if i == 0 {
			_, err := secretsOf(t, gw, gw.Endpoints.Workload).RevokeLease(t.Context(), &secretsv1.RevokeLeaseRequest{Name: name})
			must(t, err)
		}
	}
}

// Who loses its registration or its certificate loses its leases, and operators end
// leases by every filter.
func TestLeasesEndWithTheirOwner(t *testing.T) {
	t.Parallel()
	w, gw := startWithVault(t)
	other := gw.Register("other", "spiffe://"+development.TrustDomain+"/other", false)
	allowOther(t, gw)
	workloads := controlv1.NewWorkloadServiceClient(dial(t, gw, gw.Endpoints.Control, gw.Endpoints.Operator))
	gone := func(what string) {
		t.Helper()
		eventually(t, patience, what+": the roles vanish", func() bool { return len(w.usernames()) == 0 })
	}
	leaseOf(t, gw, other, databaseRole)
	_, err := workloads.DisableWorkload(t.Context(), &controlv1.DisableWorkloadRequest{Name: "workloads/other"})
	must(t, err)
	gone("disabled")
	_, err = workloads.EnableWorkload(t.Context(), &controlv1.EnableWorkloadRequest{Name: "workloads/other"})
	must(t, err)
	leaseOf(t, gw, other, databaseRole)
	revoke(t, workloads, other)
	gone("certificate revoked")

	leases := leasesOf(t, gw)
	begin := timestamppb.Now()
	for name, filter := range map[string]func(lease string) *controlv1.LeaseFilter{
		"name":     func(lease string) *controlv1.LeaseFilter { return &controlv1.LeaseFilter{Name: lease} },
		"role":     func(string) *controlv1.LeaseFilter { return &controlv1.LeaseFilter{Role: databaseRole} },
		"tenant":   func(string) *controlv1.LeaseFilter { return &controlv1.LeaseFilter{Tenant: "tenants/demo"} },
		"workload": func(string) *controlv1.LeaseFilter { return &controlv1.LeaseFilter{Workload: development.DemoWorkload} },
		"since":    func(string) *controlv1.LeaseFilter { return &controlv1.LeaseFilter{IssuedSince: begin} },
	} {
		f := filter(leaseOf(t, gw, gw.Endpoints.Workload, databaseRole))
		found, err := leases.SearchLeases(t.Context(), &controlv1.SearchLeasesRequest{Filter: f})
		must(t, err)
		if len(found.GetLeases()) == 0 {
			t.Errorf("%s: nothing found", name)
		}
		ended, err := leases.RevokeLeases(t.Context(), &controlv1.RevokeLeasesRequest{Filter: f})
		must(t, err)
		if ended.GetRevoked() != 1 {
			t.Errorf("%s: %d revoked", name, ended.GetRevoked())
		}
		gone(name)
	}
}

// When Vault cannot be reached callers are told so at once, leases that cannot be ended
// wait, are shown, and end when Vault is back.
func TestVaultAway(t *testing.T) {
	t.Parallel()
	w := newVaultWorld(t)
	gw := gatewaytest.Start(t, gatewaytest.WithConfig(w.change))
	role(t, gw, "db", "vault", database("app"))
	w.allow(t, gw)
	client := secretsOf(t, gw, gw.Endpoints.Workload)
	name := leaseOf(t, gw, gw.Endpoints.Workload, databaseRole)
	must(t, w.vault.Pause())
	ask := func() {
		begun := time.Now()
		_, err := client.LeaseSecret(t.Context(), &secretsv1.LeaseSecretRequest{Name: databaseRole})
		if a := answerOf(err); a.reason != fault.SourceUnavailable || time.Since(begun) > 20*time.Second {
			t.Errorf("Vault hangs: %v after %v", a, time.Since(begun))
		}
	}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(ask)
	}
	wg.Wait()
	// From now on nobody waits for it.
	begun := time.Now()
	ask()
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("the circuit is not open: %v", took)
	}
	l, err := client.RevokeLease(t.Context(), &secretsv1.RevokeLeaseRequest{Name: name})
	must(t, err)
	if l.GetState() != secretsv1.LeaseState_LEASE_STATE_REVOKING || len(w.usernames()) != 1 {
		t.Errorf("revoked without Vault: %v, roles %v", l.GetState(), w.usernames())
	}
	eventually(t, patience, "readiness says so and stays", func() bool {
		status, body := get(t, gw, "/readyz")
		return status == http.StatusOK && strings.Contains(body, "source vault: SOURCE_UNAVAILABLE")
	})
	must(t, w.vault.Resume())
	eventually(t, time.Minute, "the role vanishes", func() bool { return len(w.usernames()) == 0 })
}

// A leased certificate of the local authority is good for a client and for nobody
// else, and ends by itself.
func TestLeasedCertificate(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	reply, err := secretsOf(t, gw, gw.Endpoints.Workload).LeaseSecret(t.Context(), &secretsv1.LeaseSecretRequest{
		Name: development.DemoSecretRole, Lifetime: durationpb.New(2 * time.Minute),
	})
	must(t, err)
	fields := reply.GetPlaintext().GetFields()
	block, _ := pem.Decode(fields["certificate"])
	leaf, err := x509.ParseCertificate(block.Bytes)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(fields["issuing_ca"])
	verify := func(usage x509.ExtKeyUsage) error {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}})
		return err
	}
	must(t, verify(x509.ExtKeyUsageClientAuth))
	if verify(x509.ExtKeyUsageServerAuth) == nil {
		t.Error("it is good for a server")
	}
	if !leaf.NotAfter.Equal(reply.GetLease().GetExpireTime().AsTime().Truncate(time.Second)) || reply.GetLease().GetRevocable() {
		t.Errorf("it ends at %v; the lease says %v", leaf.NotAfter, reply.GetLease())
	}
	if _, err := tls.X509KeyPair(fields["certificate"], fields["private_key"]); err != nil {
		t.Error(err)
	}
}

// A restored backup of the store is older than the world: it names ends that renewals
// have put off. Nothing that is in use is revoked for it.
func TestRestoredBackupRevokesNothing(t *testing.T) {
	t.Parallel()
	w := newVaultWorld(t)
	start := func(dir string) *gatewaytest.Gateway {
		return gatewaytest.Start(t, gatewaytest.WithConfig(w.change), gatewaytest.WithDir(dir))
	}
	gw := start(t.TempDir())
	role(t, gw, "db", "vault", database("app"))
	w.allow(t, gw)
	reply, err := secretsOf(t, gw, gw.Endpoints.Workload).LeaseSecret(t.Context(), &secretsv1.LeaseSecretRequest{
		Name: databaseRole, Lifetime: durationpb.New(8 * time.Second),
	})
	must(t, err)
	must(t, gw.Stop())
	store := filepath.Join(gw.Dir, "store.db")
	backup := read(t, store)

	gw = start(gw.Dir)
	_, err = secretsOf(t, gw, gw.Endpoints.Workload).RenewLease(t.Context(), &secretsv1.RenewLeaseRequest{
		Name: reply.GetLease().GetName(), Lifetime: durationpb.New(10 * time.Minute),
	})
	must(t, err)
	must(t, gw.Stop())
	must(t, os.WriteFile(store, backup, 0o600))

	gw = start(gw.Dir)
	eventually(t, patience, "the later end is found out", func() bool {
		l, err := leasesOf(t, gw).InspectLease(t.Context(), &controlv1.InspectLeaseRequest{Name: reply.GetLease().GetName()})
		must(t, err)
		return time.Until(l.GetExpireTime().AsTime()) > time.Minute && l.GetState() == secretsv1.LeaseState_LEASE_STATE_ACTIVE
	})
	fields := reply.GetPlaintext().GetFields()
	must(t, w.postgres.Login(string(fields["username"]), string(fields["password"])))
}
