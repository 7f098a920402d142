package pipeline

import (
	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/crypto/secret"
	datav1 "github.com/sallyport/sallyport/proto/sallyport/data/v1"
	secretsv1 "github.com/sallyport/sallyport/proto/sallyport/secrets/v1"
)

// WipePlaintext overwrites the plaintext that a message of the data plane holds.
// Transports call it when the message is on the wire or read from it.
func WipePlaintext(m proto.Message) {
	switch m := m.(type) {
	case *datav1.DecryptResponse:
		secret.Wipe(m.GetPlaintext())
	case *datav1.DeterministicDecryptResponse:
		secret.Wipe(m.GetPlaintext())
	case *datav1.BatchDecryptResponse:
		for _, r := range m.GetResults() {
			secret.Wipe(r.GetPlaintext())
		}
	case *secretsv1.LeaseSecretResponse:
		wipeFields(m.GetPlaintext())
	case *secretsv1.WatchLeaseResponse:
		wipeFields(m.GetPlaintext())
	case *datav1.EncryptRequest:
		secret.Wipe(m.GetPlaintext())
	case *datav1.DeterministicEncryptRequest:
		secret.Wipe(m.GetPlaintext())
	case *datav1.ComputeMacRequest:
		secret.Wipe(m.GetData())
	case *datav1.VerifyMacRequest:
		secret.Wipe(m.GetData())
	case *datav1.BatchEncryptRequest:
		for _, i := range m.GetItems() {
			secret.Wipe(i.GetPlaintext())
		}
	}
}

func wipeFields(m *secretsv1.SecretFields) {
	for _, value := range m.GetFields() {
		secret.Wipe(value)
	}
}
