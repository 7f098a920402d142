package gateway_test

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sallyport/sallyport/gateway/broker/vaulttest"
	"github.com/sallyport/sallyport/gateway/development"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

// killsVar is how often TestKilledLeases and TestKilledServers kill; without it, a few
// times for each step.
const killsVar = "SALLYPORT_TEST_KILLS"

// killsBetweenChecks is how often it dies before everything must agree again: what a
// crash interrupts is ended only when no call for it can be under way.
const killsBetweenChecks = 10

// disasters are what happens at one of the gateway's requests to Vault.
var disasters = map[string]func(s *killedLeases, forward func()){
	"killed before the request": func(s *killedLeases, _ func()) { s.kill() },
	"killed before the answer":  func(s *killedLeases, forward func()) { forward(); s.kill() },
	"request lost":              func(*killedLeases, func()) {},
	"answer lost":               func(_ *killedLeases, forward func()) { forward() },
}

// A gateway that is killed, or cut off from Vault, at each of its requests to Vault, and
// at random moments between them, leaves no credential that its ledger does not know,
// and none that lives after its end was decided.
func TestKilledLeases(t *testing.T) {
	t.Parallel()
	w := newVaultWorld(t, vaulttest.WithFileStorage())
	s := &killedLeases{vaultWorld: w, dir: t.TempDir()}
	s.start(t)
	role(t, s.child.gw, "db", "vault", database("app"))
	w.allow(t, s.child.gw)
	leaseOf(t, s.child.gw, s.child.gw.Endpoints.Workload, databaseRole) // the first sign-in is not what is counted

	rounds := 0
	for _, verb := range []func(*testing.T){s.lease, s.renew, s.revoke} {
		for what, disaster := range disasters {
			for step := int64(1); step <= 8; step++ {
				before := w.way.requests.Load()
				w.way.next(step, func(forward func()) { disaster(s, forward) })
				verb(t)
				reached := w.way.requests.Load()-before >= step
				w.way.next(0, nil)
				rounds++
				s.check(t, fmt.Sprintf("%s at request %d", what, step))
				if !reached {
					break
				}
			}
		}
	}
	// From now on without the proxy, which would hang up on Vault for the dead.
	s.child.stop(t)
	s.source.Address = s.vault.Address
	s.start(t)
	kills, _ := strconv.Atoi(os.Getenv(killsVar))
	for kill := range max(killsBetweenChecks, kills) {
		s.restart(t)
		s.killAtRandom(t)
		rounds++
		if kill%killsBetweenChecks == killsBetweenChecks-1 {
			s.check(t, "killed at random")
		}
	}
	s.check(t, "in the end")
	s.endAll(t)
	if s.leased < rounds/2 {
		t.Errorf("only %d leases in %d rounds: that proves nothing", s.leased, rounds)
	}
	t.Logf("%d leases in %d rounds, no credential leaked", s.leased, rounds)
}

// killedLeases is a gateway that is killed again and again.
type killedLeases struct {
	*vaultWorld
	dir   string
	child child
	dead  atomic.Bool

	mu   sync.Mutex
	held []*secretsv1.Lease // by the demo workload, as far as it knows
	// leased counts what was answered.
	leased int
}

func (s *killedLeases) start(t *testing.T) {
	t.Helper()
	s.child = startChild(t, s.dir, childVaultVar+"="+s.asText(t))
}

// restart starts the gateway again if it was killed.
func (s *killedLeases) restart(t *testing.T) {
	t.Helper()
	if s.dead.Swap(false) {
		_ = s.child.Wait()
		s.start(t)
	}
}

func (s *killedLeases) kill() {
	s.dead.Store(true)
	_ = s.child.Process.Kill()
}

func (s *killedLeases) client(t *testing.T) secretsv1.SecretServiceClient {
	t.Helper()
	return secretsv1.NewSecretServiceClient(dial(t, s.child.gw, s.child.gw.Endpoints.GRPC, s.child.gw.Endpoints.Workload))
}

func (s *killedLeases) lease(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s.leaseOnce(ctx, s.client(t))
}

func (s *killedLeases) leaseOnce(ctx context.Context, client secretsv1.SecretServiceClient) {
	reply, err := client.LeaseSecret(ctx, &secretsv1.LeaseSecretRequest{Name: databaseRole})
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, reply.GetLease())
	s.leased++
}

func (s *killedLeases) one() *secretsv1.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.held) == 0 {
		return &secretsv1.Lease{Name: databaseRole + "/leases/00000000000000000000000000000000"}
	}
	return s.held[rand.IntN(len(s.held))]
}

func (s *killedLeases) renew(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, _ = s.client(t).RenewLease(ctx, &secretsv1.RenewLeaseRequest{Name: s.one().GetName()})
}

func (s *killedLeases) revoke(t *testing.T) {
	t.Helper()
	s.lease(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s.mu.Lock()
	if len(s.held) == 0 {
		s.mu.Unlock()
		return
	}
	l := s.held[len(s.held)-1]
	s.held = s.held[:len(s.held)-1]
	s.mu.Unlock()
	_, _ = s.client(t).RevokeLease(ctx, &secretsv1.RevokeLeaseRequest{Name: l.GetName()})
}

// killAtRandom kills the gateway while several callers lease, renew and revoke.
func (s *killedLeases) killAtRandom(t *testing.T) {
	t.Helper()
	client := s.client(t)
	s.dead.Store(true)
	until(t, s.child, func(ctx context.Context) {
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for ctx.Err() == nil {
					s.leaseOnce(ctx, client)
					l := s.one()
					_, _ = client.RenewLease(ctx, &secretsv1.RenewLeaseRequest{Name: l.GetName()})
					if rand.IntN(2) == 0 {
						_, _ = client.RevokeLease(ctx, &secretsv1.RevokeLeaseRequest{Name: l.GetName()})
					}
				}
			})
		}
		wg.Wait()
	})
}

// check starts the gateway again if it was killed, and waits until the credentials
// that work are those that the ledger calls active.
func (s *killedLeases) check(t *testing.T, after string) {
	t.Helper()
	s.restart(t)
	leases := controlv1.NewLeaseServiceClient(dial(t, s.child.gw, s.child.gw.Endpoints.Control, s.child.gw.Endpoints.Operator))
	var active, unsettled, works int
	defer func() {
		if t.Failed() {
			t.Logf("%d leases are active and %d on their way; %d roles work", active, unsettled, works)
		}
	}()
	eventually(t, time.Minute, after+": the ledger and PostgreSQL agree", func() bool {
		active, unsettled = count(t, leases)
		works = len(s.usernames())
		return unsettled == 0 && active == works
	})
}

// count counts the leases of the database that are active, and those on their way.
func count(t *testing.T, leases controlv1.LeaseServiceClient) (active, unsettled int) {
	t.Helper()
	for l := range all(t, leases) {
		switch l.GetState() {
		case secretsv1.LeaseState_LEASE_STATE_ACTIVE:
			active++
		case secretsv1.LeaseState_LEASE_STATE_GONE:
		default:
			unsettled++
		}
	}
	return active, unsettled
}

// all gives the leases of the database.
func all(t *testing.T, leases controlv1.LeaseServiceClient) iter.Seq[*secretsv1.Lease] {
	return func(yield func(*secretsv1.Lease) bool) {
		for token := ""; ; {
			page, err := leases.SearchLeases(t.Context(), &controlv1.SearchLeasesRequest{
				Filter: &controlv1.LeaseFilter{Role: databaseRole}, PageSize: 1000, PageToken: token,
			})
			must(t, err)
			for _, l := range page.GetLeases() {
				if !yield(l) {
					return
				}
			}
			if token = page.GetNextPageToken(); token == "" {
				return
			}
		}
	}
}

// endAll ends what there is as an operator would, and sees the roles vanish.
func (s *killedLeases) endAll(t *testing.T) {
	t.Helper()
	leases := controlv1.NewLeaseServiceClient(dial(t, s.child.gw, s.child.gw.Endpoints.Control, s.child.gw.Endpoints.Operator))
	_, err := leases.RevokeLeases(t.Context(), &controlv1.RevokeLeasesRequest{Filter: &controlv1.LeaseFilter{Workload: development.DemoWorkload}})
	must(t, err)
	eventually(t, time.Minute, "no role and no lease is left", func() bool {
		active, unsettled := count(t, leases)
		return len(s.usernames()) == 0 && active+unsettled == 0
	})
	s.child.stop(t)
}

// Vault and PostgreSQL die, too, in turns with the gateway. Then there may be accounts
// of which Vault itself knows nothing, because one of the two died while the account was
// made; nobody has their passwords. What anybody was given works as long as the ledger
// says so, and no longer.
func TestKilledServers(t *testing.T) {
	t.Parallel()
	w := newVaultWorld(t, vaulttest.WithFileStorage())
	s := &killedLeases{vaultWorld: w, dir: t.TempDir()}
	s.start(t)
	role(t, s.child.gw, "db", "vault", database("app"), func(r *controlv1.CreateSecretRoleRequest) {
		// A Vault that dies while it revokes may end what it was at only at its stated end.
		r.DefaultLifetime = durationpb.New(2 * time.Minute)
	})
	w.allow(t, s.child.gw)
	leaseOf(t, s.child.gw, s.child.gw.Endpoints.Workload, databaseRole) // it works before anything dies
	given := &given{users: map[string]string{}}
	kills, _ := strconv.Atoi(os.Getenv(killsVar))
	for kill := range max(6, kills) {
		ctx, cancel := context.WithCancel(t.Context())
		client := s.client(t)
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() { given.load(ctx, client) })
		}
		time.Sleep(time.Duration(200+rand.IntN(300)) * time.Millisecond)
		restart := s.killServer(t, kill)
		time.Sleep(200 * time.Millisecond)
		cancel()
		wg.Wait()
		restart()
		s.settle(t, kill+1)
		s.checkGiven(t, given)
	}
	if given.all < max(1, kills) {
		t.Errorf("only %d leases for %d kills: that proves nothing", given.all, kills)
	}
	t.Logf("%d leases were given, and each worked as long as the ledger said", given.all)
	s.child.stop(t)
}

// settle waits until every lease is active or gone.
func (s *killedLeases) settle(t *testing.T, kills int) {
	t.Helper()
	leases := leasesOf(t, s.child.gw)
	defer func() {
		if !t.Failed() {
			return
		}
		t.Logf("after %d kills; the end of what Vault says:\n%s", kills, s.vault.Output())
		for l := range all(t, leases) {
			if l.GetState() != secretsv1.LeaseState_LEASE_STATE_ACTIVE && l.GetState() != secretsv1.LeaseState_LEASE_STATE_GONE {
				inspected, err := leases.InspectLease(t.Context(), &controlv1.InspectLeaseRequest{Name: l.GetName()})
				t.Log(inspected, err)
			}
		}
	}()
	eventually(t, 3*time.Minute, "every lease is active or gone", func() bool {
		_, unsettled := count(t, leases)
		return unsettled == 0
	})
}

// killServer kills the gateway, Vault or PostgreSQL, in turns; what it gives starts it
// again.
func (s *killedLeases) killServer(t *testing.T, turn int) (restart func()) {
	t.Helper()
	switch turn % 3 {
	case 0:
		s.kill()
		return func() { s.restart(t) }
	case 1:
		must(t, s.vault.Kill())
		return func() { must(t, s.vault.Restart()) }
	default:
		must(t, s.postgres.Kill())
		return func() { must(t, s.postgres.Restart()) }
	}
}

// given is what was answered.
type given struct {
	mu    sync.Mutex
	all   int
	users map[string]string // by lease, of those that are not known to be gone
}

// load leases, and revokes every other time, until the context ends.
func (g *given) load(ctx context.Context, client secretsv1.SecretServiceClient) {
	for ctx.Err() == nil {
		reply, err := client.LeaseSecret(ctx, &secretsv1.LeaseSecretRequest{Name: databaseRole})
		if err != nil {
			continue
		}
		name := reply.GetLease().GetName()
		g.mu.Lock()
		g.all++
		g.users[name] = string(reply.GetPlaintext().GetFields()["username"])
		g.mu.Unlock()
		if rand.IntN(2) == 0 {
			_, _ = client.RevokeLease(ctx, &secretsv1.RevokeLeaseRequest{Name: name})
		}
	}
}

// checkGiven compares what was given with what works, and forgets what is gone.
func (s *killedLeases) checkGiven(t *testing.T, g *given) {
	t.Helper()
	leases := leasesOf(t, s.child.gw)
	eventually(t, time.Minute, "what was given works as the ledger says", func() bool {
		works := map[string]bool{}
		for _, user := range s.usernames() {
			works[user] = true
		}
		for name, user := range g.users {
			l, err := leases.InspectLease(t.Context(), &controlv1.InspectLeaseRequest{Name: name})
			must(t, err)
			active := l.GetState() == secretsv1.LeaseState_LEASE_STATE_ACTIVE
			if works[user] != active {
				return false
			}
			if !active {
				delete(g.users, name)
			}
		}
		return true
	})
}
