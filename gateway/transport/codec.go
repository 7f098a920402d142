package transport

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec of the standard services
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/pipeline"
)

// incoming asks the codec to decode a request strictly.
type incoming struct {
	message proto.Message
	limit   int // bytes
	fault   *fault.Error
}

// outgoing asks the codec to encode a reply and to wipe its plaintext.
type outgoing struct{ message proto.Message }

// codec is the gRPC codec of our listeners: protobuf, strict for our own services.
type codec struct {
	standard encoding.CodecV2
	pool     mem.BufferPool
}

func newCodec(pool mem.BufferPool) codec {
	return codec{encoding.GetCodecV2("proto"), pool}
}

// Name implements encoding.CodecV2.
func (codec) Name() string { return "proto" }

// Unmarshal decodes a request. It leaves what is wrong with ours in the request
// and returns no error, because grpc-go answers decoding errors by itself, without
// a reason.
//
// A message that encodes to another length than it
// came in held an unknown field, a field or a map key twice, or an encoding that
// no protobuf library writes: readers that differ in what they make of such bytes
// must not both be believed, so it is refused.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*incoming)
	if !ok {
		return c.standard.Unmarshal(data, v)
	}
	if data.Len() > in.limit {
		in.fault = fault.New(fault.RequestTooLarge, "")
		return nil
	}
	buf := data.MaterializeToBuffer(c.pool)
	defer buf.Free()
	err := proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(buf.ReadOnlyData(), in.message)
	wipeSmall(data)
	if err != nil || proto.Size(in.message) != data.Len() {
		in.fault = fault.New(fault.MalformedRequest, "")
	}
	return nil
}

// Marshal encodes a reply, and wipes the plaintext of the message it was in.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	out, ok := v.(outgoing)
	if !ok {
		return c.standard.Marshal(v)
	}
	size := proto.Size(out.message)
	buf := c.pool.Get(max(size, smallestPooled))
	encoded, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend((*buf)[:0], out.message)
	pipeline.WipePlaintext(out.message)
	if err != nil {
		c.pool.Put(buf)
		return nil, err
	}
	*buf = encoded
	return mem.BufferSlice{mem.NewBuffer(buf, c.pool)}, nil
}

// smallestPooled is the smallest buffer that grpc-go gives back to a pool, where it
// is wiped. It leaves smaller ones to the garbage collector.
const smallestPooled = 1<<10 + 1

// wipeSmall wipes the buffers of a request that no pool will.
func wipeSmall(data mem.BufferSlice) {
	for _, b := range data {
		if mem.IsBelowBufferPoolingThreshold(b.Len()) {
			clear(b.ReadOnlyData())
		}
	}
}

// wipingPool clears buffers before they are used again: they have held plaintext.
type wipingPool struct{ mem.BufferPool }

// Put implements mem.BufferPool.
func (p wipingPool) Put(buf *[]byte) {
	clear((*buf)[:cap(*buf)])
	p.BufferPool.Put(buf)
}
