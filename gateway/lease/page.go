package lease

import (
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/sallyport/sallyport/gateway/fault"
)

// Page sizes.
const (
	defaultPage = 100
	maxPage     = 1000
)

// tokenLen is 8 bytes of nanoseconds since 1970 UTC, big-endian, and the id.
const tokenLen = 8 + len(ID{})

// Page gives where a page of leases begins, and how many rows it has. The token is
// one that NextPage gave, or "".
func Page(token string, size int32) (Cursor, int, error) {
	if size < 0 {
		return Cursor{}, 0, fault.New(fault.InvalidArgument, "page_size is negative")
	}
	if size == 0 {
		size = defaultPage
	}
	limit := int(min(size, maxPage))
	if token == "" {
		return Cursor{}, limit, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) != tokenLen {
		return Cursor{}, 0, fault.New(fault.InvalidArgument, "page_token is not one that this gateway gave")
	}
	c := Cursor{Created: time.Unix(0, int64(binary.BigEndian.Uint64(b))).UTC()}
	copy(c.ID[:], b[8:])
	return c, limit, nil
}

// NextPage gives the token of the page after rows, or "" if there is none.
func NextPage(rows []Lease, limit int) string {
	if len(rows) < limit {
		return ""
	}
	last := rows[len(rows)-1]
	b := binary.BigEndian.AppendUint64(nil, uint64(last.Created.UnixNano()))
	return base64.RawURLEncoding.EncodeToString(append(b, last.Name.ID[:]...))
}
