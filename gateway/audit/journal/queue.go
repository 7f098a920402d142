package journal

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/gateway/audit"
)

// item is one record on its way from its caller to the writer.
type item struct {
	// Set by the caller. leaf is audit.LeafPrefix and the record, in one piece so
	// that it is hashed without a copy.
	leaf []byte
	hash audit.Hash

	abandoned atomic.Bool // the caller has stopped waiting

	// Set by the writer before done receives a value.
	batch *signedBatch
	index uint32
	err   error
	done  chan struct{} // of capacity 1

	timer *time.Timer
}

func (it *item) record() []byte { return it.leaf[1:] }

// items are used again after a successful append only. One that failed may still
// be in the hands of the writer, and is left to the garbage collector.
var items = sync.Pool{New: func() any {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &item{done: make(chan struct{}, 1), timer: t}
}}

// keepLeaf bounds the buffer that an item may keep in the pool.
const keepLeaf = 16 << 10

func (it *item) release() {
	it.timer.Stop()
	if cap(it.leaf) > keepLeaf {
		it.leaf = nil
	}
	it.leaf, it.batch = it.leaf[:0], nil
	items.Put(it)
}

// signedBatch is a batch that is durable, shared by all receipts made from it.
type signedBatch struct {
	audit.Batch
	tree audit.Tree
	sig  audit.Signature
}

func (b *signedBatch) receipt(index uint32, hash audit.Hash) audit.Receipt {
	return audit.Receipt{
		Instance: b.Instance, Segment: b.Segment, First: b.First, Count: b.Count,
		Index: index, Record: hash, Prev: b.Prev, Path: b.tree.Path(int(index)),
		Signature: b.sig,
	}
}

// queue holds what callers have handed in and the writer has not taken yet.
type queue struct {
	mu     sync.Mutex
	items  []*item
	bytes  int
	closed bool

	limit, limitBytes int
	wake              chan struct{} // of capacity 1: there is something to take
}

// put queues the item, or says why not.
func (q *queue) put(it *item) error {
	q.mu.Lock()
	switch {
	case q.closed:
		q.mu.Unlock()
		return errClosed
	case len(q.items) >= q.limit || q.bytes+len(it.leaf) > q.limitBytes:
		q.mu.Unlock()
		return errFull
	}
	q.items = append(q.items, it)
	q.bytes += len(it.leaf)
	first := len(q.items) == 1
	q.mu.Unlock()
	if first {
		q.signal()
	}
	return nil
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take moves what fits into one batch to dst, without the items whose callers
// have gone.
func (q *queue) take(dst []*item) []*item {
	q.mu.Lock()
	defer q.mu.Unlock()
	size, n := 0, 0
	for _, it := range q.items {
		if len(dst) == maxBatchRecords || (len(dst) > 0 && size+len(it.leaf) > maxBatchSize) {
			break
		}
		n++
		q.bytes -= len(it.leaf)
		if !it.abandoned.Load() {
			size += len(it.leaf) + recordPrefix
			dst = append(dst, it)
		}
	}
	rest := copy(q.items, q.items[n:])
	clear(q.items[rest:])
	q.items = q.items[:rest]
	if rest > 0 {
		q.signal()
	}
	return dst
}

// closeOnce makes put refuse from now on. It is true the first time.
func (q *queue) closeOnce() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	first := !q.closed
	q.closed = true
	return first
}

func (q *queue) depth() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}
