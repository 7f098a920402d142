package journal

import "github.com/sallyport/sallyport/gateway/audit"

// closeFrame appends the frame that ends a segment and returns its hash.
func closeFrame(dst []byte, key audit.PrivateKey, h Header, records *audit.Range, prev audit.Hash) ([]byte, audit.Hash) {
	b := audit.Batch{
		Kind: audit.KindClose, Instance: h.Instance, Segment: h.Number,
		First: h.First, Count: uint32(records.Size()), Prev: prev, Root: records.Root(),
	}
	sig, hash := b.Sign(key)
	return appendFrame(dst, &b, nil, sig), hash
}

// closeSegment ends the open segment.
func (w *writer) closeSegment() error {
	s := w.seg
	frame, hash := closeFrame(nil, w.key, s.Header, &s.records, w.chain)
	// First the padding goes, so that no reader sees anything after a close frame.
	// A crash before the sync may leave any of it, with or without the close frame:
	// recovery rewrites the file.
	if err := s.file.Truncate(s.end); err != nil {
		return err
	}
	s.zeroed = s.end
	if err := writeAll(s.file, frame, s.end); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		s.suspect = true
		return err
	}
	s.file.Close() // everything is durable: what close reports changes nothing
	w.closed(hash)
	return nil
}

// closed notes that the segment w.number is closed, with the given last hash.
func (w *writer) closed(hash audit.Hash) {
	number := w.number
	w.seg, w.chain, w.number = nil, hash, number+1
	w.age.Stop()
	w.j.closed.Store(w.number)
	if f := w.j.cfg.OnClose; f != nil {
		f(number)
	}
}

// abandon gives up a file whose sync has failed: the kernel may have dropped the
// pages and called them clean, so that another sync would succeed and mean
// nothing. What was acknowledged is copied to a new file and closed; the batch
// that failed goes to the next segment.
func (w *writer) abandon() error {
	s := w.seg
	s.release()
	name := SegmentPath(s.Number)
	if s.records.Size() == 0 {
		// Nothing in it was acknowledged: the next attempt makes it again. What
		// follows is the segment before.
		w.seg, w.chain = nil, s.Prev
		return nil
	}
	data, err := w.fs.ReadFile(name)
	if err != nil {
		return err
	}
	if int64(len(data)) < s.end {
		return &audit.BrokenError{File: name, Offset: int64(len(data)), What: "acknowledged records are gone"}
	}
	seg, err := Scan(name, s.Number, data[:s.end], w.key.Public(), nil)
	if err != nil {
		return err
	}
	if seg.End != s.end || seg.Last != w.chain {
		return &audit.BrokenError{File: name, Offset: seg.End, What: "acknowledged records are gone"}
	}
	hash, err := rewriteClosed(w.fs, w.key, seg, data, &s.records)
	if err != nil {
		return err
	}
	w.closed(hash)
	return nil
}

// rewriteClosed replaces a segment's file by a new one that holds data up to the
// segment's end, and a close frame if that does not end with one. It can be
// repeated after an error.
func rewriteClosed(fsys FS, key audit.PrivateKey, seg Segment, data []byte, records *audit.Range) (audit.Hash, error) {
	content, hash := data[:seg.End:seg.End], seg.Last
	if !seg.Closed {
		content, hash = closeFrame(content, key, seg.Header, records, seg.Last)
	}
	tmp := tempPath(seg.Number)
	// Crash before the rename: the old file is as it was, and the temporary one is
	// overwritten by the next attempt.
	if err := writeFile(fsys, tmp, content); err != nil {
		return hash, err
	}
	if err := fsys.Rename(tmp, SegmentPath(seg.Number)); err != nil {
		return hash, err
	}
	// Crash here: either file may have the name, and both hold what was
	// acknowledged.
	return hash, fsys.SyncDir(shard(seg.Number))
}
