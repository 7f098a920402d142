package rotating_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/clients/go/rotating"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// base is how PostgreSQL is reached, without a login.
func base(t *testing.T) *pgx.ConnConfig {
	t.Helper()
	c, err := pgx.ParseConfig(postgresURL)
	must(t, err)
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// dial gives a client of the shared gateway.
func dial(t *testing.T) *sallyport.Client {
	t.Helper()
	c, err := sallyport.Dial(t.Context(), gateway.GRPC, sallyport.Options{
		Credentials: sallyport.Files{Certificate: gateway.Workload.Cert, Key: gateway.Workload.Key, CA: gateway.CA},
	})
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// connector is what a service writes.
func connector(s rotating.Source, base *pgx.ConnConfig) *rotating.Connector {
	return &rotating.Connector{Source: s, Open: func(user string, password []byte) (driver.Connector, error) {
		config := base.Copy()
		config.User, config.Password = user, string(password)
		return stdlib.GetConnector(*config), nil
	}}
}

func control(t *testing.T) *sallyport.Control {
	t.Helper()
	c, err := dialControl(t.Context())
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// load queries from several goroutines until stop, and counts queries, failures and the
// users that did them.
type load struct {
	queries, failures atomic.Int64
	users             sync.Map
	last              atomic.Pointer[error]
}

func (l *load) run(ctx context.Context, query func(ctx context.Context) (string, error)) *sync.WaitGroup {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				user, err := query(ctx)
				switch {
				case ctx.Err() != nil:
				case err != nil:
					l.failures.Add(1)
					l.last.Store(&err)
				default:
					l.queries.Add(1)
					l.users.Store(user, true)
				}
			}
		})
	}
	return &wg
}

func (l *load) check(t *testing.T, what string, atLeast int) {
	t.Helper()
	users := 0
	l.users.Range(func(any, any) bool { users++; return true })
	t.Logf("%s: %d queries as %d users, %d failures", what, l.queries.Load(), users, l.failures.Load())
	if l.failures.Load() > 0 {
		t.Errorf("%s: %d of %d queries failed, the last with: %v", what, l.failures.Load(), l.queries.Load(), *l.last.Load())
	}
	if users < atLeast {
		t.Errorf("%s: %d users, want %d", what, users, atLeast)
	}
}

// Services that query without pause do not notice that their login changes. Vault ends
// the sessions of a login when it is revoked, so that a connection used for too long
// would show.
func TestRotationUnderLoad(t *testing.T) {
	ctx := t.Context()
	kept, err := dial(t).Keep(ctx, ordersRole, sallyport.KeepOptions{
		Lifetime: 6 * time.Second, Grace: 2 * time.Second,
		OnError: func(err error) { t.Error(err) },
	})
	must(t, err)

	db := sql.OpenDB(connector(kept, base(t)))
	defer db.Close()
	pool := newPool(t, kept)
	working, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	var bySQL, byPool load
	a := bySQL.run(working, func(ctx context.Context) (user string, err error) {
		return user, db.QueryRowContext(ctx, "select current_user").Scan(&user)
	})
	b := byPool.run(working, func(ctx context.Context) (user string, err error) {
		return user, pool.QueryRow(ctx, "select current_user").Scan(&user)
	})
	a.Wait()
	b.Wait()
	bySQL.check(t, "database/sql", 4)
	byPool.check(t, "pgxpool", 4)

	if roles := postgres.Roles("v-"); len(roles) > 2 {
		t.Errorf("%d logins live: %v", len(roles), roles)
	}
	must(t, kept.Close(ctx))
	gone(t)
}

// newPool is what a service with a pool of pgx writes.
func newPool(t *testing.T, kept *sallyport.Kept) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(postgresURL)
	must(t, err)
	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) (err error) {
		c.User, c.Password, err = rotating.Login(kept)
		return err
	}
	config.PrepareConn = func(_ context.Context, c *pgx.Conn) (bool, error) {
		user, err := rotating.User(kept)
		return err == nil && c.Config().User == user, err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	must(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// gone waits until PostgreSQL has none of Vault's logins any more.
func gone(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); len(postgres.Roles("v-")) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("logins live: %v", postgres.Roles("v-"))
		}
	}
}

// The new login is tried before it is taken, and an operator who revokes the old one
// does not stop the service for long.
func TestAnOperatorRevokesTheLogin(t *testing.T) {
	ctx := t.Context()
	var tried atomic.Int64
	kept, err := dial(t).Keep(ctx, ordersRole, sallyport.KeepOptions{
		OnChange: func(ctx context.Context, s *sallyport.Secret) error {
			tried.Add(1)
			return ping(ctx, base(t), s)
		},
	})
	must(t, err)
	db := sql.OpenDB(connector(kept, base(t)))
	defer db.Close()
	user := func() (name string) {
		if err := db.QueryRowContext(ctx, "select current_user").Scan(&name); err != nil {
			return ""
		}
		return name
	}
	first := user()
	if !strings.HasPrefix(first, "v-") {
		t.Fatalf("connected as %q", first)
	}
	_, err = control(t).Leases.RevokeLeases(ctx, &controlv1.RevokeLeasesRequest{Filter: &controlv1.LeaseFilter{Role: ordersRole}})
	must(t, err)
	begun := time.Now()
	for second := first; second == "" || second == first; second = user() {
		if time.Since(begun) > 20*time.Second {
			t.Fatal("no new login")
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("a new login %v after the old one was revoked", time.Since(begun).Round(time.Millisecond))
	if tried.Load() != 1 {
		t.Errorf("tried %d times", tried.Load())
	}
	must(t, kept.Close(ctx))
	gone(t)
}

// ping shows a login to PostgreSQL.
func ping(ctx context.Context, base *pgx.ConnConfig, s *sallyport.Secret) error {
	err := s.Use("username", func(user []byte) error {
		return s.Use("password", func(password []byte) error {
			base.User, base.Password = string(user), string(password)
			return nil
		})
	})
	if err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, base)
	if err != nil {
		return fmt.Errorf("trying the new login: %w", err)
	}
	return conn.Close(ctx)
}
