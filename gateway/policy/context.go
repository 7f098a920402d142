package policy

import (
	"encoding/binary"
	"strings"

	cedar "github.com/cedar-policy/cedar-go"
)

// tenancyOf gives what Cedar is told of the resource's tenant.
func (s *compiled) tenancyOf(r Resource, memory *scratch) *tenancy {
	memory.key = append(memory.key[:0], r.parent...)
	if found, ok := s.tenancies.get(memory.key); ok {
		return found
	}
	made := newTenancy(r.parent)
	s.tenancies.set(memory.key, made)
	return made
}

// contextOf gives the context of the loaded policies, as far as they can observe it.
// Policies that observe only a few keys of the encryption context, and not the time,
// mostly see values that were there before.
func (s *compiled) contextOf(t *tenancy, c Context, memory *scratch) cedar.Record {
	v := &s.uses
	switch {
	case !v.time && !v.encryption && !v.all:
		return t.attributes // {tenant}, which the guards found to be the context's too
	case v.time || v.all || len(v.order) > maxMemoKeys:
		return v.record(c)
	}
	memory.key = v.appendKey(memory.key[:0], c)
	if found, ok := s.contexts.get(memory.key); ok {
		return found
	}
	made := v.record(v.clone(c))
	s.contexts.set(memory.key, made)
	return made
}

// maxMemoKeys is how many keys of the encryption context policies may name before
// looking up a context costs more than making it.
const maxMemoKeys = 16

// appendKey appends an encoding of what the policies can observe of the context,
// without the time:
//
//	length and bytes of the tenant
//	for each key that policies name, in order:
//	    0, or 1 and length and bytes of its value
//
// Lengths are unsigned varints.
func (v *vocabulary) appendKey(b []byte, c Context) []byte {
	b = appendString(b, c.Tenant)
	for _, key := range v.order {
		value, ok := c.Encryption[key]
		if !ok {
			b = append(b, 0)
			continue
		}
		b = appendString(append(b, 1), value)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// clone copies what can be observed, so that a record that is remembered does not
// keep a whole request in memory.
func (v *vocabulary) clone(c Context) Context {
	out := Context{Tenant: strings.Clone(c.Tenant), Time: c.Time, Encryption: map[string]string{}}
	for _, key := range v.order {
		if value, ok := c.Encryption[key]; ok {
			out.Encryption[key] = strings.Clone(value)
		}
	}
	return out
}

// record makes the context.
func (v *vocabulary) record(c Context) cedar.Record {
	m := cedar.RecordMap{"tenant": cedar.String(c.Tenant)}
	if v.time || v.all {
		m["time"] = cedar.Long(c.Time)
	}
	if v.encryption || v.all {
		m["encryption"] = v.encryptionRecord(c.Encryption)
	}
	return cedar.NewRecord(m)
}

func (v *vocabulary) encryptionRecord(pairs map[string]string) cedar.Record {
	var m cedar.RecordMap
	for key, value := range pairs {
		if v.all || v.keys[key] {
			if m == nil {
				m = cedar.RecordMap{}
			}
			m[cedar.String(key)] = cedar.String(value)
		}
	}
	if m == nil {
		return cedar.Record{}
	}
	return cedar.NewRecord(m)
}
