package host

import (
	"time"

	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/gateway/store/sqlite"
)

func (h *Host) openVaults(map[string]lease.Source) error { return nil }

func restoredAt(*sqlite.Store) time.Time { return time.Time{} }
