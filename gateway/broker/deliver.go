package broker

import (
	"crypto/ecdsa"

	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/crypto/delivery"
	"github.com/sallyport/sallyport/crypto/secret"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

// recipientOf gives the recipient that a request names, or nil if it names none. The
// key is tried here, before anything is issued for it.
func recipientOf(g Grant, r *secretsv1.Recipient) (*delivery.Recipient, error) {
	if r == nil {
		return nil, nil
	}
	kem, key := delivery.KEM(r.GetKem()), r.GetPublicKey()
	if r.GetCertificateKey() {
		if kem != 0 || len(key) > 0 {
			return nil, fault.New(fault.InvalidRecipient, "a recipient is a public key or the certificate's, not both")
		}
		ec, ok := g.CertificateKey().(*ecdsa.PublicKey)
		if !ok {
			return nil, fault.New(fault.InvalidRecipient, "the certificate's key is not of the curve P-256")
		}
		dh, err := ec.ECDH()
		if err != nil {
			return nil, fault.Wrap(fault.InvalidRecipient, "the certificate's key is not of the curve P-256", err)
		}
		kem, key = delivery.DHKEMP256, dh.Bytes()
	}
	to, err := delivery.NewRecipient(kem, key)
	if err != nil {
		return nil, fault.Wrap(fault.InvalidRecipient, "", err)
	}
	return &to, nil
}

// deliver puts a value into the form that leaves: as it is, or sealed. The value stays
// the caller's to wipe, and the transport wipes the form.
func deliver(value lease.Value, to *delivery.Recipient, l lease.Lease) (*secretsv1.SecretFields, *secretsv1.SealedSecret, error) {
	fields := &secretsv1.SecretFields{Fields: make(map[string][]byte, len(value))}
	for _, f := range value {
		err := f.Value.Use(func(b []byte) error {
			fields.Fields[f.Name] = append(make([]byte, 0, len(b)), b...)
			return nil
		})
		if err != nil {
			wipeFields(fields)
			return nil, nil, err
		}
	}
	if to == nil {
		return fields, nil, nil
	}
	defer wipeFields(fields)
	plaintext := make([]byte, 0, proto.Size(fields))
	plaintext, err := proto.MarshalOptions{}.MarshalAppend(plaintext, fields)
	defer secret.Wipe(plaintext)
	if err != nil {
		return nil, nil, err
	}
	enc, ciphertext, err := to.Seal(delivery.Binding{Lease: l.Name.String(), Workload: l.Workload}, plaintext)
	if err != nil {
		return nil, nil, fault.Wrap(fault.InvalidRecipient, "", err)
	}
	return nil, &secretsv1.SealedSecret{Kem: secretsv1.Kem(to.KEM()), Enc: enc, Ciphertext: ciphertext}, nil
}

func wipeFields(m *secretsv1.SecretFields) {
	for _, b := range m.GetFields() {
		secret.Wipe(b)
	}
}
