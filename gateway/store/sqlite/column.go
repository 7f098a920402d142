package sqlite

import (
	"database/sql/driver"
	"fmt"
	"math"
	"time"
)

// stamp is a time as a column holds it: nanoseconds since 1970 UTC, and NULL for
// the zero time.
type stamp time.Time

// The first and the last instant that a column can hold, in 1677 and 2262.
var (
	firstStamp = time.Unix(0, math.MinInt64)
	lastStamp  = time.Unix(0, math.MaxInt64)
)

// Value implements driver.Valuer. A time beyond the range is stored as its end: a
// rotation in 300 years must not overflow into one that is long due.
func (s stamp) Value() (driver.Value, error) {
	t := time.Time(s)
	switch {
	case t.IsZero():
		return nil, nil
	case t.Before(firstStamp):
		return int64(math.MinInt64), nil
	case t.After(lastStamp):
		return int64(math.MaxInt64), nil
	}
	return t.UnixNano(), nil
}

// Scan implements sql.Scanner.
func (s *stamp) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*s = stamp{}
	case int64:
		*s = stamp(time.Unix(0, v).UTC())
	default:
		return fmt.Errorf("a time of type %T", v)
	}
	return nil
}

// instant is a time that is part of an order: a stamp that is never NULL. The least
// integer stands for the zero time.
type instant time.Time

// Value implements driver.Valuer.
func (i instant) Value() (driver.Value, error) {
	if time.Time(i).IsZero() {
		return int64(math.MinInt64), nil
	}
	return stamp(i).Value()
}

// Scan implements sql.Scanner.
func (i *instant) Scan(v any) error {
	if v == int64(math.MinInt64) {
		v = nil
	}
	return (*stamp)(i).Scan(v)
}

// blob gives bytes for a column that is NOT NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// limitOf gives the LIMIT of a query in which 0 means all.
func limitOf(n int) int {
	if n == 0 {
		return -1
	}
	return n
}
