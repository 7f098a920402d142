package transport

import (
	"encoding/base64"
	"strconv"

	"google.golang.org/protobuf/proto"

	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
)

// parseRequest decodes the plain form of the hot requests: an object with a base64
// field and a context of short strings, each key once, no escapes. It reports
// false for everything else, which protojson then accepts or refuses; whatever it
// accepts, protojson decodes to the same message (FuzzParseRequest).
func parseRequest(data []byte, m proto.Message) bool {
	switch m := m.(type) {
	case *datav1.EncryptRequest:
		return parsePlain(data, "plaintext", &m.Plaintext, &m.Context)
	case *datav1.DecryptRequest:
		return parsePlain(data, "ciphertext", &m.Ciphertext, &m.Context)
	}
	return false
}

func parsePlain(data []byte, field string, value *[]byte, context *map[string]string) bool {
	s := scanner{data: data}
	var haveField, haveContext bool
	if !s.take('{') {
		return false
	}
	for {
		key, ok := s.str()
		if !ok || !s.take(':') {
			return false
		}
		switch {
		case string(key) == field && !haveField:
			haveField = true
			text, ok := s.str()
			if !ok {
				return false
			}
			*value = make([]byte, base64.StdEncoding.DecodedLen(len(text)))
			n, err := base64.StdEncoding.Decode(*value, text)
			if err != nil {
				return false
			}
			*value = (*value)[:n]
		case string(key) == "context" && !haveContext:
			haveContext = true
			if *context, ok = s.stringMap(); !ok {
				return false
			}
		default:
			return false
		}
		if s.take(',') {
			continue
		}
		return s.take('}') && s.atEnd()
	}
}

// scanner reads the plain subset of JSON.
type scanner struct {
	data []byte
	pos  int
}

func (s *scanner) space() {
	for s.pos < len(s.data) && (s.data[s.pos] == ' ' || s.data[s.pos] == '\n' || s.data[s.pos] == '\r' || s.data[s.pos] == '\t') {
		s.pos++
	}
}

func (s *scanner) take(c byte) bool {
	s.space()
	if s.pos < len(s.data) && s.data[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

func (s *scanner) atEnd() bool {
	s.space()
	return s.pos == len(s.data)
}

// str reads a string of printable ASCII without escapes.
func (s *scanner) str() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	start := s.pos
	for ; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			return s.data[start : s.pos-1], true
		case c < 0x20 || c > 0x7e || c == '\\':
			return nil, false
		}
	}
	return nil, false
}

func (s *scanner) stringMap() (map[string]string, bool) {
	if !s.take('{') {
		return nil, false
	}
	if s.take('}') {
		return nil, true
	}
	m := map[string]string{}
	for {
		key, ok := s.str()
		if !ok || !s.take(':') {
			return nil, false
		}
		value, ok := s.str()
		if _, twice := m[string(key)]; !ok || twice {
			return nil, false
		}
		m[string(key)] = string(value)
		if s.take(',') {
			continue
		}
		return m, s.take('}')
	}
}

// appendReply encodes the hot replies as protojson does.
func appendReply(dst []byte, m proto.Message) ([]byte, bool) {
	switch m := m.(type) {
	case *datav1.EncryptResponse:
		return appendPlain(dst, `{"ciphertext":"`, m.GetCiphertext(), m.GetVersion()), true
	case *datav1.DecryptResponse:
		return appendPlain(dst, `{"plaintext":"`, m.GetPlaintext(), m.GetVersion()), true
	}
	return nil, false
}

func appendPlain(dst []byte, head string, value []byte, version uint32) []byte {
	const room = len(`","version":4294967295}`)
	if dst == nil {
		dst = make([]byte, 0, len(head)+base64.StdEncoding.EncodedLen(len(value))+room)
	}
	dst = base64.StdEncoding.AppendEncode(append(dst, head...), value)
	dst = strconv.AppendUint(append(dst, `","version":`...), uint64(version), 10)
	return append(dst, '}')
}
