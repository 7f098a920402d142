package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// family is how one of the interfaces that we implement calls what can go wrong;
// nil where it has no word for it.
type family struct{ notFound, exists, conflict, quota, store error }

// wrap turns an error of the driver into one of the family. Errors that are of the
// family already pass, and so does the end of a context.
func (f family) wrap(err error) error {
	if err == nil {
		return nil
	}
	for _, known := range []error{f.notFound, f.exists, f.conflict, f.quota, context.Canceled, context.DeadlineExceeded} {
		if known != nil && errors.Is(err, known) {
			return err
		}
	}
	if meaning := f.meaning(err); meaning != nil {
		return meaning
	}
	return fmt.Errorf("%w: %w", f.store, err)
}

// meaning gives the family's word for an outcome that is no failure of the store.
func (f family) meaning(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return f.notFound
	}
	var e *driver.Error
	if !errors.As(err, &e) {
		return nil
	}
	switch e.Code() {
	case lib.SQLITE_CONSTRAINT_PRIMARYKEY, lib.SQLITE_CONSTRAINT_UNIQUE:
		return f.exists
	case lib.SQLITE_CONSTRAINT_FOREIGNKEY:
		return f.notFound
	}
	return nil
}
