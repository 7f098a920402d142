package policy

import "sync"

// memo remembers the results of a pure function. When full it forgets all: each that comes again costs a few
// microseconds, and nothing has to be kept about use.
//
// It is safe for concurrent use; the zero memo is empty.
type memo[V any] struct {
	mu    sync.RWMutex
	known map[string]V
}

// The bounds of a memo: a few megabytes.
const (
	maxMemo    = 8192 // entries
	maxMemoKey = 512  // bytes
)

// get gives what the key was set to. It does not allocate.
func (m *memo[V]) get(key []byte) (V, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	v, ok := m.known[string(key)]
	return v, ok
}

// set copies the key. Keys that are too long are not remembered.
func (m *memo[V]) set(key []byte, v V) {
	if len(key) > maxMemoKey {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil || len(m.known) >= maxMemo {
		m.known = make(map[string]V)
	}
	m.known[string(key)] = v
}
