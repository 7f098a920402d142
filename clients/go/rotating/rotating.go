// Package rotating connects to databases with the credential of the moment.
//
// A [Connector] is what database/sql opens connections with:
//
//	kept, err := client.Keep(ctx, "tenants/acme/secretRoles/orders-db", sallyport.KeepOptions{})
//	…
//	db := sql.OpenDB(&rotating.Connector{Source: kept, Open: func(user string, password []byte) (driver.Connector, error) {
//		config := base.Copy() // a *pgx.ConnConfig
//		config.User, config.Password = user, string(password)
//		return stdlib.GetConnector(*config), nil
//	}})
//
// Each new connection gets the credential that is current then. When it changes, the
// connections of the one before go on with what they are doing and are closed when they
// come back to the pool, or before they would be used again. So KeepOptions.Grace, after
// which the old credential is revoked, is how long a query or a transaction may go on.
//
// Idle connections of an old credential do nothing but stay; DB.SetConnMaxIdleTime says
// how long. A pool of another kind is served by [Login] and [User], if it asks before it
// makes a connection and before it uses one: pgxpool has BeforeConnect and PrepareConn.
package rotating

import (
	"context"
	"database/sql/driver"
	"errors"

	sallyport "github.com/sallyport/sallyport/clients/go"
)

// Source is where the credential comes from: a [sallyport.Kept]. As long as the secret
// is the same one, so is the credential.
type Source interface {
	Current() (*sallyport.Secret, error)
}

// Connector is a driver.Connector for sql.OpenDB. Source and Open are required.
type Connector struct {
	Source Source
	// Open makes the driver's own connector for a login. It is called for each new
	// connection, and must not keep password, which is wiped with the secret. Most drivers
	// want a string, whose memory nobody can wipe.
	Open func(user string, password []byte) (driver.Connector, error)
	// UserField and PasswordField name the fields of the secret. Empty means "username"
	// and "password".
	UserField, PasswordField string
}

// maxAttempts bounds connecting when the credential changes meanwhile.
const maxAttempts = 3

// Connect implements driver.Connector. Without a current secret it fails as
// [sallyport.Kept.Current] does.
func (c *Connector) Connect(ctx context.Context) (driver.Conn, error) {
	for attempt := 1; ; attempt++ {
		s, err := c.Source.Current()
		if err != nil {
			return nil, err
		}
		raw, err := c.connect(ctx, s)
		if err == nil {
			return newConn(raw, c.Source, s), nil
		}
		// A credential may end between being read and being shown.
		if attempt == maxAttempts || ctx.Err() != nil || !stale(c.Source, s) {
			return nil, err
		}
	}
}

func (c *Connector) connect(ctx context.Context, s *sallyport.Secret) (driver.Conn, error) {
	user, err := text(s, or(c.UserField, "username"))
	if err != nil {
		return nil, err
	}
	var opened driver.Connector
	err = s.Use(or(c.PasswordField, "password"), func(password []byte) error {
		opened, err = c.Open(user, password)
		return err
	})
	if err != nil {
		return nil, err
	}
	return opened.Connect(ctx)
}

// Driver implements driver.Connector. The driver cannot open anything by itself.
func (c *Connector) Driver() driver.Driver { return nameless{} }

type nameless struct{}

func (nameless) Open(string) (driver.Conn, error) {
	return nil, errors.New("rotating: use sql.OpenDB with the Connector")
}

// Login gives the current login as strings, for what takes nothing else. The memory of a
// string cannot be wiped: it stays readable in the process until it is used for something
// else. The fields are "username" and "password".
//
//	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) (err error) {
//		c.User, c.Password, err = rotating.Login(kept)
//		return err
//	}
func Login(s Source) (user, password string, err error) {
	current, err := s.Current()
	if err != nil {
		return "", "", err
	}
	if user, err = text(current, "username"); err != nil {
		return "", "", err
	}
	password, err = text(current, "password")
	return user, password, err
}

// User gives the user of the current login. A connection of another one is not to be used
// any more:
//
//	config.PrepareConn = func(_ context.Context, c *pgx.Conn) (bool, error) {
//		user, err := rotating.User(kept)
//		return err == nil && c.Config().User == user, err
//	}
func User(s Source) (string, error) {
	current, err := s.Current()
	if err != nil {
		return "", err
	}
	return text(current, "username")
}

// stale reports whether s is not the secret to use any more.
func stale(source Source, s *sallyport.Secret) bool {
	current, err := source.Current()
	return err != nil || current != s
}

func text(s *sallyport.Secret, field string) (t string, err error) {
	err = s.Use(field, func(b []byte) error {
		t = string(b)
		return nil
	})
	return t, err
}

func or(name, standard string) string {
	if name == "" {
		return standard
	}
	return name
}
