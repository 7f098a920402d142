package rotating_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/clients/go/rotating"
	"github.com/sallyport/sallyport/gateway/development"
)

// source gives whichever secret a test wants.
type source struct {
	mu     sync.Mutex
	secret *sallyport.Secret
	err    error
}

func (s *source) Current() (*sallyport.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.secret, s.err
}

func (s *source) set(secret *sallyport.Secret, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secret, s.err = secret, err
}

// leases gives secrets to pretend with: certificates, whose serial number is the user.
func leases(t *testing.T, n int) (secrets []*sallyport.Secret) {
	t.Helper()
	c := dial(t)
	for range n {
		s, err := c.SecretRole(development.DemoSecretRole).Lease(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, s)
	}
	return secrets
}

func userOf(t *testing.T, s *sallyport.Secret) (user string) {
	t.Helper()
	if err := s.Use("serial_number", func(b []byte) error { user = string(b); return nil }); err != nil {
		t.Fatal(err)
	}
	return user
}

// database counts the connections that a driver of our own has.
type database struct {
	bare bool // its connections have none of the optional interfaces

	mu     sync.Mutex
	logins []string
	open   []string // the users of the open connections
	refuse func(user string) error
}

func (d *database) connector(s rotating.Source) *rotating.Connector {
	return &rotating.Connector{
		Source: s, UserField: "serial_number", PasswordField: "private_key",
		Open: func(user string, password []byte) (driver.Connector, error) {
			if len(password) < 100 {
				return nil, errors.New("no key")
			}
			return login{d, user}, nil
		},
	}
}

func (d *database) users() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.open)
}

type login struct {
	database *database
	user     string
}

func (l login) Connect(context.Context) (driver.Conn, error) {
	d := l.database
	d.mu.Lock()
	refuse := d.refuse
	d.mu.Unlock()
	if refuse != nil {
		if err := refuse(l.user); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.logins, d.open = append(d.logins, l.user), append(d.open, l.user)
	if d.bare {
		return bareConn{l}, nil
	}
	return fullConn{bareConn{l}}, nil
}

func (login) Driver() driver.Driver { return nil }

// bareConn has what every driver has to have.
type bareConn struct{ login login }

func (c bareConn) Prepare(string) (driver.Stmt, error) { return stmt(c), nil }
func (c bareConn) Begin() (driver.Tx, error)           { return tx{}, nil }
func (c bareConn) Close() error {
	d := c.login.database
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.Index(d.open, c.login.user)
	d.open = slices.Delete(d.open, i, i+1)
	return nil
}

type tx struct{}

func (tx) Commit() error   { return nil }
func (tx) Rollback() error { return nil }

type stmt struct{ login login }

func (stmt) Close() error  { return nil }
func (stmt) NumInput() int { return -1 }
func (stmt) Exec(args []driver.Value) (driver.Result, error) {
	for _, a := range args {
		if !driver.IsValue(a) {
			return nil, errors.New("database/sql did not convert an argument")
		}
	}
	return driver.RowsAffected(1), nil
}

func (s stmt) Query(args []driver.Value) (driver.Rows, error) {
	return &rows{values: []driver.Value{s.login.user}}, nil
}

// rows is one row of one column.
type rows struct{ values []driver.Value }

func (*rows) Columns() []string { return []string{"user"} }
func (*rows) Close() error      { return nil }
func (r *rows) Next(dest []driver.Value) error {
	if r.values == nil {
		return io.EOF
	}
	copy(dest, r.values)
	r.values = nil
	return nil
}

// fullConn has everything that database/sql looks for.
type fullConn struct{ bareConn }

var errNumber = errors.New("thirteen is not served")

func (fullConn) Ping(context.Context) error         { return nil }
func (fullConn) IsValid() bool                      { return true }
func (fullConn) ResetSession(context.Context) error { return nil }
func (c fullConn) PrepareContext(context.Context, string) (driver.Stmt, error) {
	return stmt(c.bareConn), nil
}

func (c fullConn) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) { return tx{}, nil }

func (c fullConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(2), nil
}

func (c fullConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return &rows{values: []driver.Value{c.login.user}}, nil
}

func (fullConn) CheckNamedValue(v *driver.NamedValue) error {
	if v.Value == 13 {
		return errNumber
	}
	return driver.ErrSkip
}

// querier is a *sql.DB or a *sql.Tx.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// who asks the database who the connection belongs to.
func who(t *testing.T, q querier) (user string) {
	t.Helper()
	if err := q.QueryRowContext(t.Context(), "select user").Scan(&user); err != nil {
		t.Fatal(err)
	}
	return user
}

func openDB(t *testing.T, c driver.Connector) *sql.DB {
	t.Helper()
	db := sql.OpenDB(c)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestAChangeReplacesConnections(t *testing.T) {
	secrets := leases(t, 2)
	old, fresh := userOf(t, secrets[0]), userOf(t, secrets[1])
	for _, bare := range []bool{false, true} {
		s, d := &source{secret: secrets[0]}, &database{bare: bare}
		db := openDB(t, d.connector(s))

		// One connection is idle and one in a transaction when the credential changes.
		begun, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := who(t, db); got != old || len(d.users()) != 2 {
			t.Fatalf("%s of %v", got, d.users())
		}
		s.set(secrets[1], nil)
		if got := who(t, begun); got != old {
			t.Errorf("the transaction goes on as %s", got)
		}
		if got := who(t, db); got != fresh {
			t.Errorf("a new query goes as %s", got)
		}
		if got := d.users(); !slices.Equal(got, []string{old, fresh}) {
			t.Errorf("bare %v: the idle connection of the old credential was not closed: %v", bare, got)
		}
		if err := begun.Commit(); err != nil {
			t.Error(err)
		}
		if got := d.users(); !slices.Equal(got, []string{fresh}) {
			t.Errorf("bare %v: the transaction's connection was not closed: %v", bare, got)
		}
		for range 10 {
			who(t, db)
		}
		if len(d.logins) != 3 {
			t.Errorf("logins: %v", d.logins)
		}
	}
}

// Without a current secret nothing is opened, and nothing that is open is used.
func TestWithoutASecretThereAreNoConnections(t *testing.T) {
	secrets := leases(t, 1)
	s, d := &source{secret: secrets[0]}, &database{}
	db := openDB(t, d.connector(s))
	who(t, db)
	s.set(nil, &sallyport.Error{Reason: sallyport.LeaseGone})
	if err := db.PingContext(t.Context()); !errors.Is(err, sallyport.LeaseGone) {
		t.Error(err)
	}
	if n := len(d.users()); n != 0 {
		t.Errorf("%d connections are open", n)
	}
	s.set(secrets[0], nil)
	who(t, db)
}

// A credential may end between being read and being shown: then the next one is tried.
func TestAChangeWhileConnecting(t *testing.T) {
	secrets := leases(t, 2)
	refused := errors.New("no such role")
	s, d := &source{secret: secrets[0]}, &database{}
	d.refuse = func(user string) error {
		if user == userOf(t, secrets[0]) {
			s.set(secrets[1], nil)
			return refused
		}
		return nil
	}
	db := openDB(t, d.connector(s))
	if got := who(t, db); got != userOf(t, secrets[1]) {
		t.Errorf("as %s", got)
	}

	tries := 0
	d.refuse = func(string) error { tries++; return refused }
	if _, err := d.connector(s).Connect(t.Context()); !errors.Is(err, refused) || tries != 1 {
		t.Errorf("a login that is refused and has not changed: %v after %d tries", err, tries)
	}
	secrets[1].Wipe()
	if _, err := d.connector(s).Connect(t.Context()); err == nil {
		t.Error("a wiped secret opens a connection")
	}
}

// What a driver can do it still does, and what it cannot database/sql does without.
func TestDriversKeepWhatTheyCanDo(t *testing.T) {
	secrets := leases(t, 1)
	for _, bare := range []bool{false, true} {
		s, d := &source{secret: secrets[0]}, &database{bare: bare}
		db := openDB(t, d.connector(s))
		ctx := t.Context()
		if err := db.PingContext(ctx); err != nil {
			t.Error(err)
		}
		result, err := db.ExecContext(ctx, "x", 1)
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := result.RowsAffected(); (n == 1) != bare {
			t.Errorf("bare %v: executed the other way", bare)
		}
		if _, err := db.ExecContext(ctx, "x", 13); errors.Is(err, errNumber) == bare {
			t.Errorf("bare %v: arguments are checked: %v", bare, err)
		}
		prepared, err := db.PrepareContext(ctx, "x")
		if err != nil {
			t.Fatal(err)
		}
		defer prepared.Close()
		begun, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
		if (err != nil) != bare {
			t.Errorf("bare %v: a read-only transaction: %v", bare, err)
		}
		if err == nil {
			_ = begun.Rollback()
		}
		conn, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Raw(func(c any) error {
			if _, ok := c.(*rotating.Conn).Raw().(bareConn); ok != bare {
				t.Errorf("%T", c)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		_ = conn.Close()
		if _, err := db.Driver().Open("x"); err == nil {
			t.Error("the driver opens something without a credential")
		}
	}
}

// A transaction that ends with its context leaves a connection that only some drivers
// can clean up: of the others it is closed, as without us.
func TestATransactionThatIsCutOff(t *testing.T) {
	secrets := leases(t, 1)
	for _, bare := range []bool{false, true} {
		s, d := &source{secret: secrets[0]}, &database{bare: bare}
		db := openDB(t, d.connector(s))
		ctx, cancel := context.WithCancel(t.Context())
		begun, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		for begun.Rollback() == nil {
			time.Sleep(time.Millisecond)
		}
		want := 1
		if bare {
			want = 0
		}
		for end := time.Now().Add(5 * time.Second); len(d.users()) != want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("bare %v: %d connections are open", bare, len(d.users()))
			}
		}
	}
}
