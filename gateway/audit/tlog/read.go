package tlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"sort"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/journal"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
)

// Entry is a record with its place in the log.
type Entry struct {
	Sequence uint64
	Segment  uint64
	Hash     audit.Hash // leaf hash of the record's bytes as written
	Record   *auditv1.Record
}

// Filter says which records to read. An empty field asks for nothing; a text that
// ends in an asterisk matches what begins with the rest of it.
type Filter struct {
	FromSequence uint64
	From, To     time.Time // of the record: From ≤ time < To
	Caller       string
	Action       string
	Resource     string
	Reason       string // "-" matches records without one
	Decision     auditv1.Decision
}

func (f Filter) match(r *auditv1.Record) bool {
	at := r.GetTime().AsTime()
	reason := r.GetReason()
	if f.Reason == "-" && reason == "" {
		reason = "-"
	}
	return (f.From.IsZero() || !at.Before(f.From)) &&
		(f.To.IsZero() || at.Before(f.To)) &&
		matchText(f.Caller, r.GetCaller()) && matchText(f.Action, r.GetAction()) &&
		matchText(f.Resource, r.GetResource()) && matchText(f.Reason, reason) &&
		(f.Decision == auditv1.Decision_DECISION_UNSPECIFIED || f.Decision == r.GetDecision())
}

func matchText(pattern, s string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(s, prefix)
	}
	return pattern == "" || pattern == s
}

// followInterval is how often a reader that follows looks for more.
const followInterval = 200 * time.Millisecond

// Read yields the records of the log in dir that f matches, in order. With follow
// it goes on as the log grows, until ctx ends; that is not an error. An error is
// yielded last. Signatures and roots are checked as records are read, links
// between segments and the tree are not: that is Verify.
func Read(ctx context.Context, dir string, key audit.PublicKey, f Filter, follow bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		r := reader{ctx: ctx, dir: dir, key: key, filter: f, next: f.FromSequence, yield: yield}
		if err := r.read(follow); err != nil && !errors.Is(err, errStopped) {
			yield(Entry{}, err)
		}
	}
}

// errStopped: the loop that ranges over the records has ended, or its context.
var errStopped = errors.New("tlog: stopped")

type reader struct {
	ctx    context.Context
	dir    string
	key    audit.PublicKey
	filter Filter
	next   uint64 // sequence number of the next record to look at
	yield  func(Entry, error) bool
}

func (r *reader) read(follow bool) error {
	if err := verifyFormat(r.dir, r.key); err != nil {
		return err
	}
	root, fsys, err := journal.DirFS(r.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	numbers, err := journal.Segments(fsys)
	if err != nil {
		return err
	}
	segment := r.start(numbers)
	for {
		closed, err := r.segment(fsys, segment)
		switch {
		case errors.Is(err, fs.ErrNotExist): // not written yet
		case err != nil:
			return err
		case closed:
			segment++
			continue
		}
		if !follow {
			return nil
		}
		if sleep(r.ctx, followInterval); r.ctx.Err() != nil {
			return errStopped
		}
	}
}

// start returns the segment that holds record r.next, or the last one.
func (r *reader) start(numbers []uint64) uint64 {
	if len(numbers) == 0 {
		return 0
	}
	i := sort.Search(len(numbers), func(i int) bool {
		h, err := journal.ReadHeader(r.dir, numbers[i])
		return err != nil || h.First > r.next
	})
	return numbers[max(i-1, 0)]
}

// segment yields what is new in a segment, and reports whether it is closed.
func (r *reader) segment(fsys journal.FS, number uint64) (bool, error) {
	name := journal.SegmentPath(number)
	data, err := fsys.ReadFile(name)
	if err != nil {
		return false, err
	}
	s, err := journal.Scan(name, number, data, r.key, r.frame)
	return s.Closed, err
}

func (r *reader) frame(f *journal.Frame) error {
	if r.ctx.Err() != nil {
		return errStopped
	}
	for i, b := range f.Records() {
		sequence := f.First + uint64(i)
		if sequence < r.next {
			continue
		}
		r.next = sequence + 1
		record := new(auditv1.Record)
		if err := proto.Unmarshal(b, record); err != nil {
			return fmt.Errorf("tlog: record %d: %w", sequence, err)
		}
		if !r.filter.match(record) {
			continue
		}
		if !r.yield(Entry{Sequence: sequence, Segment: f.Segment, Hash: f.Leaves[i], Record: record}, nil) {
			return errStopped
		}
	}
	return nil
}
