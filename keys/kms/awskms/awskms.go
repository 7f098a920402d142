// Package awskms is a KEK in AWS KMS: a symmetric key that wraps keysets by
// Encrypt and Decrypt, with the binding as encryption context, so that key
// policies can match on it and CloudTrail shows it.
//
// What it does depends on its Config alone. It reads no environment variable, no
// shared configuration and no proxy setting, and asks the instance metadata
// service only if told to. docs/operations/kek-awskms.md is the operator's page.
package awskms

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/sallyport/sallyport/crypto/secret"
	"github.com/sallyport/sallyport/keys"
)

// ErrConfig is in the chain of every error of New.
var ErrConfig = errors.New("awskms: invalid configuration")

// maxWrapped is the largest CiphertextBlob that Decrypt takes, in bytes (AWS KMS
// API Reference, Decrypt).
const maxWrapped = 6144

// Config says which key, and how it is reached. The zero value of every optional
// field is usable.
type Config struct {
	// KeyARN is the full ARN of one symmetric key. Aliases are refused: what an
	// alias names can change.
	KeyARN string
	// Endpoint replaces the regional endpoint, for example by that of a VPC
	// endpoint: an https URL, or http on a loopback address. Optional.
	Endpoint    string
	Credentials Credentials
	Retry       Retry
}

// Client is what the package calls of the SDK's kms.Client.
type Client interface {
	Encrypt(context.Context, *kms.EncryptInput, ...func(*kms.Options)) (*kms.EncryptOutput, error)
	Decrypt(context.Context, *kms.DecryptInput, ...func(*kms.Options)) (*kms.DecryptOutput, error)
}

// KEK is one AWS KMS key. It implements keys.KEK.
type KEK struct {
	arn    string
	client Client
	retry  Retry
	close  func()
}

var _ keys.KEK = (*KEK)(nil)

// New makes a KEK. It makes no call: a key that does not exist or may not be used
// shows itself at the first Wrap or Unwrap. The error wraps ErrConfig.
func New(c Config) (*KEK, error) {
	region, err := checkKeyARN(c.KeyARN)
	if err != nil {
		return nil, err
	}
	if err := checkEndpoint(c.Endpoint); err != nil {
		return nil, err
	}
	retry, err := c.Retry.withDefaults()
	if err != nil {
		return nil, err
	}
	transport := newTransport()
	httpClient := &http.Client{Transport: transport, CheckRedirect: noRedirect}
	provider, err := c.Credentials.provider(region, httpClient)
	if err != nil {
		return nil, err
	}
	options := kms.Options{
		Region:      region,
		Credentials: provider,
		HTTPClient:  httpClient,
		Retryer:     aws.NopRetryer{}, // Retry does it, with one budget for the whole call
	}
	if c.Endpoint != "" {
		options.BaseEndpoint = aws.String(c.Endpoint)
	}
	k := newKEK(c.KeyARN, kms.New(options), retry)
	k.close = transport.CloseIdleConnections
	return k, nil
}

func newKEK(keyARN string, client Client, r Retry) *KEK {
	return &KEK{arn: keyARN, client: client, retry: r, close: func() {}}
}

// URI is "awskms:" and the key's ARN.
func (k *KEK) URI() string { return "awskms:" + k.arn }

// Close drops idle connections.
func (k *KEK) Close() { k.close() }

// Wrap encrypts a keyset. Encrypting twice because an answer was lost does no harm.
func (k *KEK) Wrap(ctx context.Context, keyset []byte, b keys.Binding) ([]byte, error) {
	if len(keyset) == 0 || len(keyset) > keys.MaxKeyset {
		return nil, fmt.Errorf("%w: a keyset of %d bytes", keys.ErrKEKRefused, len(keyset))
	}
	input := &kms.EncryptInput{
		KeyId:               aws.String(k.arn),
		Plaintext:           keyset,
		EncryptionContext:   b.Pairs(),
		EncryptionAlgorithm: types.EncryptionAlgorithmSpecSymmetricDefault,
	}
	return call(ctx, k.retry, func(ctx context.Context) ([]byte, error) {
		out, err := k.client.Encrypt(ctx, input)
		if err != nil {
			return nil, err
		}
		if aws.ToString(out.KeyId) != k.arn || len(out.CiphertextBlob) == 0 {
			return nil, errWrongAnswer
		}
		return out.CiphertextBlob, nil
	})
}

// Unwrap decrypts what Wrap made, by this key only: the ARN is pinned in the
// request and compared with the answer's.
func (k *KEK) Unwrap(ctx context.Context, wrapped []byte, b keys.Binding) ([]byte, error) {
	if len(wrapped) == 0 || len(wrapped) > maxWrapped {
		return nil, fmt.Errorf("%w: %d bytes", keys.ErrKEKMismatch, len(wrapped))
	}
	input := &kms.DecryptInput{
		KeyId:               aws.String(k.arn),
		CiphertextBlob:      wrapped,
		EncryptionContext:   b.Pairs(),
		EncryptionAlgorithm: types.EncryptionAlgorithmSpecSymmetricDefault,
	}
	return call(ctx, k.retry, func(ctx context.Context) ([]byte, error) {
		out, err := k.client.Decrypt(ctx, input)
		if err != nil {
			return nil, err
		}
		if aws.ToString(out.KeyId) != k.arn || len(out.Plaintext) == 0 || len(out.Plaintext) > keys.MaxKeyset {
			secret.Wipe(out.Plaintext)
			return nil, errWrongAnswer
		}
		return out.Plaintext, nil
	})
}

// checkKeyARN returns the region of a key ARN, such as
// arn:aws:kms:eu-central-1:123456789012:key/1234abcd-….
func checkKeyARN(s string) (region string, err error) {
	parsed, err := arn.Parse(s)
	if err != nil || parsed.Service != "kms" || parsed.Region == "" ||
		!strings.HasPrefix(parsed.Resource, "key/") {
		return "", fmt.Errorf("%w: KeyARN must be the full ARN of a key, not of an alias", ErrConfig)
	}
	return parsed.Region, nil
}

func checkEndpoint(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%w: Endpoint is not a plain URL", ErrConfig)
	}
	if u.Scheme == "https" {
		return nil
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%w: Endpoint must be https, or http on a loopback address", ErrConfig)
}

// newTransport is a transport without the proxy of the environment, which would
// see nothing of the keyset through TLS but could hold up every call.
func newTransport() *http.Transport {
	return &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 3 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   3 * time.Second,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          32,
		MaxIdleConnsPerHost:   32,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
}

// noRedirect: KMS does not redirect, and a body with a keyset follows nobody.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
