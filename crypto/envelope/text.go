package envelope

import (
	"encoding/base64"
	"strings"
)

// TextPrefix begins the text form. The digit is the version of the text form,
// not of the envelope in it.
const TextPrefix = "sp1:"

// textEncoding is unpadded base64url (RFC 4648 section 5) in which the unused
// low bits of the last character must be zero (section 3.5), so that an
// envelope has one text form.
var textEncoding = base64.RawURLEncoding.Strict()

// EncodeText returns the text form of an envelope: [TextPrefix] and unpadded
// base64url.
func EncodeText(raw []byte) string {
	dst := make([]byte, 0, len(TextPrefix)+textEncoding.EncodedLen(len(raw)))
	dst = append(dst, TextPrefix...)
	return string(textEncoding.AppendEncode(dst, raw))
}

// DecodeText returns the bytes of a text form. It accepts exactly what
// [EncodeText] writes, for at least one and at most [MaxSize] bytes, and fails
// with [ErrText] otherwise. It does not look at the bytes; [Parse] does.
func DecodeText(text string) ([]byte, error) {
	body, ok := strings.CutPrefix(text, TextPrefix)
	if !ok || body == "" || len(body) > textEncoding.EncodedLen(MaxSize) {
		return nil, ErrText
	}
	// encoding/base64 skips line breaks, even when strict.
	if strings.ContainsAny(body, "\r\n") {
		return nil, ErrText
	}
	raw, err := textEncoding.DecodeString(body)
	if err != nil {
		return nil, ErrText
	}
	return raw, nil
}
