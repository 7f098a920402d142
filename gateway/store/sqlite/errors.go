package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// family is how one of the interfaces we implement calls what can go wrong.
type family struct{ notFound, exists, conflict, store error }

// wrap turns an error of the driver into one of the family. Errors that are of the
// family already pass, and so does the end of a context.
func (f family) wrap(err error) error {
	if err == nil {
		return nil
	}
	for _, known := range []error{f.notFound, f.exists, f.conflict, f.store, context.Canceled, context.DeadlineExceeded} {
		if known != nil && errors.Is(err, known) {
			return err
		}
	}
	var e *driver.Error
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return f.notFound
	case errors.As(err, &e) && (e.Code() == lib.SQLITE_CONSTRAINT_PRIMARYKEY || e.Code() == lib.SQLITE_CONSTRAINT_UNIQUE):
		return f.exists
	case errors.As(err, &e) && e.Code() == lib.SQLITE_CONSTRAINT_FOREIGNKEY:
		return f.notFound
	}
	return fmt.Errorf("%w: %w", f.store, err)
}
