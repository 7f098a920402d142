package vault

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/sallyport/sallyport/crypto/secret"
)

// An answer of Vault holds secrets, so it is not decoded into Go strings, which nobody
// can wipe. This reader points into the one buffer that holds the answer and copies
// nothing until it is asked for a value. It accepts less than RFC 8259 allows: no
// names that occur twice, no invalid UTF-8, no halves of surrogate pairs.

// errJSON says nothing of the text: it may be secret.
var errJSON = errors.New("not the JSON that was expected")

// maxDepth is how deep values may nest.
const maxDepth = 32

// element is a value within an answer: its text, valid and without space around it.
// The zero element is absent.
type element []byte

// object is the members of a JSON object by name.
type object map[string]element

// parse gives the object that is the whole text.
func parse(text []byte) (object, error) {
	at := space(text, 0)
	end, err := skip(text, at, 0)
	if err != nil {
		return nil, err
	}
	if space(text, end) != len(text) {
		return nil, errJSON
	}
	return element(text[at:end]).object()
}

// object gives the members of an object.
func (e element) object() (object, error) {
	o := object{}
	_, err := members(e, 0, 0, func(name string, value element) { o[name] = value })
	if err != nil {
		return nil, err
	}
	return o, nil
}

// names gives the names of the members, in order.
func (o object) names() []string { return slices.Sorted(maps.Keys(o)) }

// null reports whether the element is absent or null.
func (e element) null() bool { return len(e) == 0 || string(e) == "null" }

// isText reports whether the element is a string.
func (e element) isText() bool { return len(e) > 0 && e[0] == '"' }

// text gives a string as a secret.
func (e element) text() (secret.Bytes, error) {
	if !e.isText() {
		return secret.Bytes{}, errJSON
	}
	b, err := unescape(e)
	if err != nil {
		return secret.Bytes{}, err
	}
	return secret.Take(b), nil
}

// name gives a string that is no secret, "" if it is absent or null.
func (e element) name() (string, error) {
	if e.null() {
		return "", nil
	}
	if !e.isText() {
		return "", errJSON
	}
	b, err := unescape(e)
	return string(b), err
}

// number gives a whole number that is not negative, 0 if it is absent or null.
func (e element) number() (int64, error) {
	if e.null() {
		return 0, nil
	}
	n, err := strconv.ParseUint(string(e), 10, 63)
	if err != nil {
		return 0, errJSON
	}
	return int64(n), nil
}

// flag gives a boolean, false if it is absent or null.
func (e element) flag() (bool, error) {
	switch string(e) {
	case "true":
		return true, nil
	case "false", "null", "":
		return false, nil
	}
	return false, errJSON
}

// elements gives the elements of an array, none if it is absent or null.
func (e element) elements() ([]element, error) {
	if e.null() {
		return nil, nil
	}
	var all []element
	_, err := items(e, 0, 0, func(value element) { all = append(all, value) })
	return all, err
}

// secretText gives a string as it is, and everything else as its JSON.
func (e element) secretText() (secret.Bytes, error) {
	if e.isText() {
		return e.text()
	}
	return secret.Copy(e), nil
}

func space(b []byte, at int) int {
	for at < len(b) && (b[at] == ' ' || b[at] == '\t' || b[at] == '\n' || b[at] == '\r') {
		at++
	}
	return at
}

// skip checks the value that begins at a place, and gives its end.
func skip(b []byte, at, depth int) (int, error) {
	if at >= len(b) || depth > maxDepth {
		return 0, errJSON
	}
	switch c := b[at]; {
	case c == '{':
		return members(b, at, depth, nil)
	case c == '[':
		return items(b, at, depth, nil)
	case c == '"':
		return skipString(b, at)
	case c == '-' || c >= '0' && c <= '9':
		return skipNumber(b, at)
	}
	for _, word := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(b[at:], []byte(word)) {
			return at + len(word), nil
		}
	}
	return 0, errJSON
}

// members walks over an object.
func members(b []byte, at, depth int, each func(name string, value element)) (int, error) {
	if at >= len(b) || b[at] != '{' {
		return 0, errJSON
	}
	seen := map[string]bool{}
	at = space(b, at+1)
	if at < len(b) && b[at] == '}' {
		return at + 1, nil
	}
	for {
		end, err := skipString(b, at)
		if err != nil {
			return 0, err
		}
		name, err := unescape(b[at:end])
		if err != nil || seen[string(name)] {
			return 0, errJSON
		}
		seen[string(name)] = true
		at = space(b, end)
		if at >= len(b) || b[at] != ':' {
			return 0, errJSON
		}
		at = space(b, at+1)
		if end, err = skip(b, at, depth+1); err != nil {
			return 0, err
		}
		if each != nil {
			each(string(name), element(b[at:end:end]))
		}
		var more bool
		if at, more, err = next(b, end, '}'); err != nil || !more {
			return at, err
		}
	}
}

// items walks over an array.
func items(b []byte, at, depth int, each func(element)) (int, error) {
	if at >= len(b) || b[at] != '[' {
		return 0, errJSON
	}
	at = space(b, at+1)
	if at < len(b) && b[at] == ']' {
		return at + 1, nil
	}
	for {
		end, err := skip(b, at, depth+1)
		if err != nil {
			return 0, err
		}
		if each != nil {
			each(element(b[at:end:end]))
		}
		var more bool
		if at, more, err = next(b, end, ']'); err != nil || !more {
			return at, err
		}
	}
}

// next expects a comma, and gives where the next part begins, or the end.
func next(b []byte, at int, last byte) (_ int, more bool, err error) {
	at = space(b, at)
	switch {
	case at >= len(b):
		return 0, false, errJSON
	case b[at] == last:
		return at + 1, false, nil
	case b[at] == ',':
		return space(b, at+1), true, nil
	}
	return 0, false, errJSON
}

// skipString finds the end of a string. unescape checks its inside.
func skipString(b []byte, at int) (int, error) {
	if at >= len(b) || b[at] != '"' {
		return 0, errJSON
	}
	begin := at
	for at++; at < len(b); at++ {
		switch c := b[at]; {
		case c == '\\':
			at++
		case c == '"':
			if _, err := measure(b[begin : at+1]); err != nil {
				return 0, err
			}
			return at + 1, nil
		}
	}
	return 0, errJSON
}

// skipNumber follows the grammar of RFC 8259, section 6.
func skipNumber(b []byte, at int) (int, error) {
	digits := func() bool {
		begin := at
		for at < len(b) && b[at] >= '0' && b[at] <= '9' {
			at++
		}
		return at > begin
	}
	if b[at] == '-' {
		at++
	}
	if at < len(b) && b[at] == '0' {
		at++
	} else if !digits() {
		return 0, errJSON
	}
	if at < len(b) && b[at] == '.' {
		at++
		if !digits() {
			return 0, errJSON
		}
	}
	if at < len(b) && (b[at] == 'e' || b[at] == 'E') {
		at++
		if at < len(b) && (b[at] == '+' || b[at] == '-') {
			at++
		}
		if !digits() {
			return 0, errJSON
		}
	}
	return at, nil
}

// measure checks a string with its quotes, and gives how long its value is.
func measure(quoted []byte) (int, error) {
	n := 0
	err := runes(quoted, func(r rune) { n += utf8.RuneLen(r) })
	return n, err
}

// unescape gives a string's value in memory of its own, which has no room for more,
// so that it is never copied for growing.
func unescape(quoted []byte) ([]byte, error) {
	n, err := measure(quoted)
	if err != nil {
		return nil, err
	}
	value := make([]byte, 0, n)
	err = runes(quoted, func(r rune) { value = utf8.AppendRune(value, r) })
	return value, err
}

// runes walks over the characters of a string with its quotes.
func runes(quoted []byte, each func(rune)) error {
	if len(quoted) < 2 {
		return errJSON
	}
	for b := quoted[1 : len(quoted)-1]; len(b) > 0; {
		if b[0] != '\\' {
			r, size := utf8.DecodeRune(b)
			if r < ' ' || r == '"' || r == utf8.RuneError && size == 1 {
				return errJSON
			}
			each(r)
			b = b[size:]
			continue
		}
		r, size, err := escaped(b)
		if err != nil {
			return err
		}
		each(r)
		b = b[size:]
	}
	return nil
}

// escaped reads what begins with a backslash.
func escaped(b []byte) (r rune, size int, err error) {
	if len(b) < 2 {
		return 0, 0, errJSON
	}
	if b[1] != 'u' {
		const from, to = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
		i := bytes.IndexByte([]byte(from), b[1])
		if i < 0 {
			return 0, 0, errJSON
		}
		return rune(to[i]), 2, nil
	}
	if r, err = hex(b[2:]); err != nil || !utf16.IsSurrogate(r) {
		return r, 6, err
	}
	if len(b) < 8 || b[6] != '\\' || b[7] != 'u' {
		return 0, 0, errJSON
	}
	low, err := hex(b[8:])
	if err != nil {
		return 0, 0, err
	}
	if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
		return 0, 0, errJSON
	}
	return r, 12, nil
}

// hex reads four digits.
func hex(b []byte) (r rune, err error) {
	if len(b) < 4 {
		return 0, errJSON
	}
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, errJSON
		}
		r = r<<4 | rune(c)
	}
	return r, nil
}

// appendQuoted writes a text as a JSON string. What is not UTF-8 becomes something
// that Vault refuses.
func appendQuoted(to, text []byte) []byte {
	const digits = "0123456789abcdef"
	to = append(to, '"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			to = append(to, '\\', c)
		case c < ' ':
			to = append(to, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			to = append(to, c)
		}
	}
	return append(to, '"')
}
