package policy

import "encoding/binary"

// decideOnce gives the decision of before, if the same was asked before. A
// snapshot is a pure function, so that what can be asked and observed is the whole
// key: the principal (with the attributes it was made with), the action, the
// resource, every fact of the gateway's in the context, and of the encryption
// context what any loaded policy names, and the time if one reads it: an answer then
// holds for the second in which it was given. Policies that observe the encryption
// context as a whole are evaluated every time.
//
// The decisions are the snapshot's own: another policy begins with none.
// TestMemoryIsSound compares with deciding anew, and fails when a part of the key is
// left out.
func (s *compiled) decideOnce(r Request, memory *scratch) Decision {
	if r.Principal == nil || !r.Action.Valid() || r.Resource.kind != r.Action.Resource() {
		return Decision{Reason: ReasonRequest}
	}
	if s.uses.all || len(s.uses.order) > maxMemoKeys {
		return s.decide(r, memory)
	}
	memory.asked = s.uses.appendQuestion(memory.asked[:0], r)
	if d, ok := s.decided.get(memory.asked); ok {
		return d
	}
	d := s.decide(r, memory)
	s.decided.set(memory.asked, d)
	return d
}

// appendQuestion appends an encoding of everything that the decision depends on:
// fixed-size fields, then strings with their lengths as unsigned varints, then the
// encoding of appendKey.
func (v *vocabulary) appendQuestion(b []byte, r Request) []byte {
	b = binary.BigEndian.AppendUint64(b, r.Principal.serial)
	b = append(b, byte(r.Action), byte(r.Resource.kind), byte(r.Context.Standing), byte(r.Context.Chain))
	if v.time {
		b = binary.BigEndian.AppendUint64(b, uint64(r.Context.Time))
	}
	b = appendString(b, r.Resource.name)
	b = appendString(b, r.Resource.parent)
	return v.appendKey(b, r.Context)
}
