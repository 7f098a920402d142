package floor

import (
	"context"

	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
)

// echo answers with what it was given, in messages of the form and nearly the size
// of Sallyport's.
type echo struct {
	datav1.UnimplementedDataServiceServer
}

// Encrypt implements datav1.DataServiceServer.
func (echo) Encrypt(_ context.Context, r *datav1.EncryptRequest) (*datav1.EncryptResponse, error) {
	return &datav1.EncryptResponse{Ciphertext: r.GetPlaintext(), Version: 1}, nil
}

// Decrypt implements datav1.DataServiceServer.
func (echo) Decrypt(_ context.Context, r *datav1.DecryptRequest) (*datav1.DecryptResponse, error) {
	return &datav1.DecryptResponse{Plaintext: r.GetCiphertext(), Version: 1}, nil
}

// BatchEncrypt implements datav1.DataServiceServer.
func (echo) BatchEncrypt(_ context.Context, r *datav1.BatchEncryptRequest) (*datav1.BatchEncryptResponse, error) {
	reply := &datav1.BatchEncryptResponse{Version: 1}
	for _, item := range r.GetItems() {
		reply.Results = append(reply.Results, &datav1.BatchEncryptResponse_Result{Ciphertext: item.GetPlaintext()})
	}
	return reply, nil
}

// BatchDecrypt implements datav1.DataServiceServer.
func (echo) BatchDecrypt(_ context.Context, r *datav1.BatchDecryptRequest) (*datav1.BatchDecryptResponse, error) {
	reply := &datav1.BatchDecryptResponse{}
	for _, item := range r.GetItems() {
		reply.Results = append(reply.Results, &datav1.BatchDecryptResponse_Result{Plaintext: item.GetCiphertext(), Version: 1})
	}
	return reply, nil
}
