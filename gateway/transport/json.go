package transport

import (
	"bytes"
	"errors"
	"io"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/pipeline"
)

// jsonBody is a request's body, read whole, with the exchange it belongs to.
type jsonBody struct {
	*bytes.Reader
	bytes    []byte
	exchange *exchange
}

// Close implements io.Closer.
func (*jsonBody) Close() error { return nil }

// jsonMarshaler is the JSON of our REST API: the JSON mapping of protobuf, strict.
// An unknown field, a repeated key, and anything after the message are refused.
type jsonMarshaler struct{}

// ContentType implements runtime.Marshaler.
func (*jsonMarshaler) ContentType(any) string { return "application/json" }

var errNotMessage = errors.New("transport: not a protobuf message")

// Marshal implements runtime.Marshaler.
func (j *jsonMarshaler) Marshal(v any) ([]byte, error) {
	switch chunk := v.(type) {
	case map[string]any:
		return j.chunk("result", chunk["result"])
	case map[string]proto.Message:
		return j.chunk("error", chunk["error"])
	}
	m, ok := v.(proto.Message)
	if !ok {
		return nil, errNotMessage
	}
	if out, ok := appendReply(nil, m); ok {
		return out, nil
	}
	return protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
}

// chunk is one line of a stream: {"result": message}, or {"error": problem} with the
// members of a problem body, as the last.
func (j *jsonMarshaler) chunk(name string, v any) ([]byte, error) {
	var inner []byte
	var err error
	if s, ok := v.(*statuspb.Status); ok {
		f, known := fault.FromStatus(status.FromProto(s))
		if !known {
			f = fault.New(fault.Internal, "")
		}
		inner = f.JSON()
	} else {
		inner, err = j.Marshal(v)
	}
	if err != nil {
		return nil, err
	}
	defer clear(inner)
	out := make([]byte, 0, len(inner)+len(name)+6)
	out = append(append(append(out, `{"`...), name...), `":`...)
	return append(append(out, inner...), '}'), nil
}

// Unmarshal implements runtime.Marshaler.
func (*jsonMarshaler) Unmarshal(data []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return errNotMessage
	}
	return unmarshalStrict(data, m)
}

// unmarshalStrict decodes a message. Resource names are in the path; a body that
// names one too is refused, because only one of the two could be believed.
func unmarshalStrict(data []byte, m proto.Message) error {
	if parseRequest(data, m) {
		return nil
	}
	pipeline.WipePlaintext(m) // parseRequest may have got that far
	proto.Reset(m)
	if err := (protojson.UnmarshalOptions{}).Unmarshal(data, m); err != nil {
		return err
	}
	for _, field := range []protoreflect.Name{"name", "parent"} {
		fd := m.ProtoReflect().Descriptor().Fields().ByName(field)
		if fd != nil && m.ProtoReflect().Has(fd) {
			return errors.New("transport: the body names a resource")
		}
	}
	return nil
}

// NewDecoder implements runtime.Marshaler.
func (j *jsonMarshaler) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		body, ok := r.(*jsonBody)
		if !ok {
			return errNotMessage
		}
		if err := j.Unmarshal(body.bytes, v); err != nil {
			body.exchange.malformed = fault.Wrap(fault.MalformedRequest, "", err)
			return err
		}
		return nil
	})
}

// NewEncoder implements runtime.Marshaler.
func (j *jsonMarshaler) NewEncoder(w io.Writer) runtime.Encoder {
	return runtime.EncoderFunc(func(v any) error {
		data, err := j.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
}
