package policy

import "sync"

// memo remembers the results of a pure function. When full it forgets all: each that
// comes again costs a few microseconds, and nothing has to be kept about use.
//
// It is safe for concurrent use. Its values are shared and must not be changed.
type memo[V any] struct {
	limit int // entries
	mu    sync.RWMutex
	known map[string]V
}

// The bounds of the memos of a snapshot: about 10 MB in all.
const (
	maxTenancies = 1024 // of some 2.5 kB each
	maxContexts  = 1024 // of some 2 kB each
	maxDecisions = 8192 // of some 0.5 kB each
	maxMemoKey   = 512  // bytes
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
	if m.known == nil || len(m.known) >= m.limit {
		m.known = make(map[string]V)
	}
	m.known[string(key)] = v
}
