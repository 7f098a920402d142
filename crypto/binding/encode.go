package binding

import "encoding/binary"

// Encode returns the injective encoding of a list of byte strings that is the
// input of every key derivation, MAC and associated data in Sallyport:
//
//	┌────────────┬────────┐ ┌────────────┬────────┐
//	│ length (8) │ domain │ │ length (8) │ field  │  repeated for each field
//	└────────────┴────────┘ └────────────┴────────┘
//
// Lengths are big-endian. Read from the front, the bytes decode in one way
// only, so two different lists never share an encoding. The domain names what
// the fields are and how many: no two uses share a domain, and a number among
// the fields is big-endian in a width that its domain fixes. Eight bytes of
// length, as in PASETO's pre-authentication encoding, leave no size that would
// need an error.
func Encode(domain string, fields ...[]byte) []byte {
	size := prefixLen + len(domain)
	for _, f := range fields {
		size += prefixLen + len(f)
	}
	dst := AppendField(make([]byte, 0, size), domain)
	for _, f := range fields {
		dst = AppendField(dst, f)
	}
	return dst
}

// prefixLen is the number of bytes of a field's length.
const prefixLen = 8

// AppendField appends one field of the encoding of [Encode] to dst. An encoding
// begins with the field that is its domain.
func AppendField[T string | []byte](dst []byte, field T) []byte {
	return append(binary.BigEndian.AppendUint64(dst, uint64(len(field))), field...)
}

// AppendUint32 appends a number as a field of four bytes.
func AppendUint32(dst []byte, v uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(dst, 4), v)
}
