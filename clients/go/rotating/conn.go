package rotating

import (
	"context"
	"database/sql/driver"
	"errors"

	sallyport "github.com/sallyport/sallyport/clients/go"
)

// Conn is a connection that knows which credential it was opened with. It does what the
// driver's own does, and what that lacks as database/sql does without.
type Conn struct {
	raw    driver.Conn
	source Source
	secret *sallyport.Secret
	// keeps is what database/sql asks of a driver before it puts a connection back whose
	// transaction ended with its context. Conn has the methods that it looks for, so it
	// answers for drivers that have not.
	keeps bool
	over  <-chan struct{} // the end of the last transaction's context
}

func newConn(raw driver.Conn, source Source, s *sallyport.Secret) *Conn {
	_, resets := raw.(driver.SessionResetter)
	_, validates := raw.(driver.Validator)
	return &Conn{raw: raw, source: source, secret: s, keeps: resets && validates}
}

// The interfaces that database/sql looks for.
var (
	_ driver.Conn               = (*Conn)(nil)
	_ driver.ConnPrepareContext = (*Conn)(nil)
	_ driver.ConnBeginTx        = (*Conn)(nil)
	_ driver.ExecerContext      = (*Conn)(nil)
	_ driver.QueryerContext     = (*Conn)(nil)
	_ driver.Pinger             = (*Conn)(nil)
	_ driver.NamedValueChecker  = (*Conn)(nil)
	_ driver.SessionResetter    = (*Conn)(nil)
	_ driver.Validator          = (*Conn)(nil)
)

// Raw gives the driver's connection, for use within sql.Conn.Raw.
func (c *Conn) Raw() driver.Conn { return c.raw }

// IsValid implements driver.Validator: a connection of an old credential does not go
// back to the pool.
func (c *Conn) IsValid() bool {
	if stale(c.source, c.secret) {
		return false
	}
	if !c.keeps {
		select {
		case <-c.over:
			return false
		default:
		}
	}
	v, ok := c.raw.(driver.Validator)
	return !ok || v.IsValid()
}

// ResetSession implements driver.SessionResetter: a connection of an old credential is
// not used again.
func (c *Conn) ResetSession(ctx context.Context) error {
	if stale(c.source, c.secret) {
		return driver.ErrBadConn
	}
	c.over = nil
	if r, ok := c.raw.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

// Close implements driver.Conn.
func (c *Conn) Close() error { return c.raw.Close() }

// Prepare implements driver.Conn.
func (c *Conn) Prepare(query string) (driver.Stmt, error) { return c.raw.Prepare(query) }

// PrepareContext implements driver.ConnPrepareContext.
func (c *Conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if p, ok := c.raw.(driver.ConnPrepareContext); ok {
		return p.PrepareContext(ctx, query)
	}
	s, err := c.raw.Prepare(query)
	if err == nil && ctx.Err() != nil {
		_ = s.Close()
		return nil, ctx.Err()
	}
	return s, err
}

// Begin implements driver.Conn.
func (c *Conn) Begin() (driver.Tx, error) {
	return c.raw.Begin() //nolint:staticcheck // driver.Conn has it
}

// BeginTx implements driver.ConnBeginTx.
func (c *Conn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	c.over = ctx.Done()
	if b, ok := c.raw.(driver.ConnBeginTx); ok {
		return b.BeginTx(ctx, o)
	}
	if o.Isolation != 0 || o.ReadOnly {
		return nil, errors.New("rotating: the driver knows no options of transactions")
	}
	tx, err := c.Begin()
	if err == nil && ctx.Err() != nil {
		_ = tx.Rollback()
		return nil, ctx.Err()
	}
	return tx, err
}

// ExecContext implements driver.ExecerContext.
func (c *Conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if e, ok := c.raw.(driver.ExecerContext); ok {
		return e.ExecContext(ctx, query, args)
	}
	return nil, driver.ErrSkip // database/sql prepares it
}

// QueryContext implements driver.QueryerContext.
func (c *Conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if q, ok := c.raw.(driver.QueryerContext); ok {
		return q.QueryContext(ctx, query, args)
	}
	return nil, driver.ErrSkip
}

// Ping implements driver.Pinger.
func (c *Conn) Ping(ctx context.Context) error {
	if p, ok := c.raw.(driver.Pinger); ok {
		return p.Ping(ctx)
	}
	return nil
}

// CheckNamedValue implements driver.NamedValueChecker.
func (c *Conn) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := c.raw.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return driver.ErrSkip // the default check
}
