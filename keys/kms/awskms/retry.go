package awskms

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	smithy "github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/sallyport/sallyport/keys"
)

// Retry bounds one Wrap or Unwrap. Only what may go better the next time is tried
// again: throttling, and no answer.
type Retry struct {
	Attempts int           // at most; default 3
	Attempt  time.Duration // deadline of one attempt; default 2 s
	Total    time.Duration // deadline of the whole call; default 5 s
	// Base and Max bound the pauses: before attempt n+1 a random time between 0 and
	// Base·2ⁿ⁻¹, at most Max ("full jitter", Brooker, "Exponential Backoff And
	// Jitter", AWS Architecture Blog 2015). Defaults 50 ms and 1 s.
	Base, Max time.Duration
}

func (r Retry) withDefaults() (Retry, error) {
	for value, standard := range map[*time.Duration]time.Duration{
		&r.Attempt: 2 * time.Second, &r.Total: 5 * time.Second, &r.Base: 50 * time.Millisecond, &r.Max: time.Second,
	} {
		if *value < 0 {
			return r, fmt.Errorf("%w: negative time in Retry", ErrConfig)
		}
		if *value == 0 {
			*value = standard
		}
	}
	if r.Attempts == 0 {
		r.Attempts = 3
	}
	if r.Attempts < 0 || r.Attempts > 10 {
		return r, fmt.Errorf("%w: Retry.Attempts must be 1 to 10", ErrConfig)
	}
	return r, nil
}

// pause returns the pause before the attempt after the nth, counted from 1.
func (r Retry) pause(n int) time.Duration {
	ceiling := min(r.Base<<(n-1), r.Max)
	return rand.N(ceiling + 1)
}

// call makes attempts until one succeeds, fails for good, or a bound is reached.
// The error is in the family keys.ErrKEK.
func call(ctx context.Context, r Retry, attempt func(context.Context) ([]byte, error)) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Total)
	defer cancel()
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("%w: %w", keys.ErrKEKUnreachable, err)
		}
		result, err := once(ctx, r.Attempt, attempt)
		if err == nil {
			return result, nil
		}
		err = classify(err)
		if n == r.Attempts || errors.Is(err, keys.ErrKEKRefused) {
			return nil, withContext(ctx, err)
		}
		pause := time.NewTimer(r.pause(n))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, withContext(ctx, err)
		}
	}
}

func once(ctx context.Context, limit time.Duration, attempt func(context.Context) ([]byte, error)) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return attempt(ctx)
}

// withContext adds the context's error, as keys.KEK asks, if the context is what
// ended the call.
func withContext(ctx context.Context, err error) error {
	cause := ctx.Err()
	if cause == nil || errors.Is(err, cause) || !errors.Is(err, keys.ErrKEKUnreachable) {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// errWrongAnswer: KMS, or somebody in its place, answered for another key.
var errWrongAnswer = errors.New("the answer is not for the pinned key")

// codes are the error codes that decide (AWS KMS API Reference, Encrypt, Decrypt
// and Common Errors). Codes that are not here are judged by their HTTP status.
var codes = map[string]error{
	"ThrottlingException":      keys.ErrKEKThrottled,
	"Throttling":               keys.ErrKEKThrottled,
	"LimitExceededException":   keys.ErrKEKThrottled,
	"TooManyRequestsException": keys.ErrKEKThrottled,
	"RequestLimitExceeded":     keys.ErrKEKThrottled,

	"InvalidCiphertextException": keys.ErrKEKMismatch,
	"IncorrectKeyException":      keys.ErrKEKMismatch,

	"DependencyTimeoutException":  keys.ErrKEKUnreachable,
	"KMSInternalException":        keys.ErrKEKUnreachable,
	"KeyUnavailableException":     keys.ErrKEKUnreachable, // "You can retry the request", says the reference
	"InternalFailure":             keys.ErrKEKUnreachable,
	"ServiceUnavailable":          keys.ErrKEKUnreachable,
	"ServiceUnavailableException": keys.ErrKEKUnreachable,
	// An expired session says nothing about the key, only that our renewal is late.
	"ExpiredToken":          keys.ErrKEKUnreachable,
	"ExpiredTokenException": keys.ErrKEKUnreachable,
}

// classify turns an error of the SDK into one of the family keys.ErrKEK.
//
// Whatever KMS refuses and the table does not know is a refusal: AccessDenied,
// DisabledException, KMSInvalidStateException (pending deletion, for one),
// NotFoundException, and what AWS adds later. Whatever is no answer of the service
// is unreachable: dialling, TLS, time, a connection cut, an answer that cannot be
// read, credentials that could not be fetched. The messages of the service are kept
// out: they name accounts and principals.
func classify(err error) error {
	if errors.Is(err, errWrongAnswer) {
		return fmt.Errorf("%w: %w", keys.ErrKEKRefused, err)
	}
	var response *smithyhttp.ResponseError
	status := 0
	if errors.As(err, &response) {
		status = response.HTTPStatusCode()
	}
	var service smithy.APIError
	if !errors.As(err, &service) || status < http.StatusBadRequest {
		return fmt.Errorf("%w: %w", keys.ErrKEKUnreachable, transportCause(err))
	}
	family, known := codes[service.ErrorCode()]
	switch {
	case known:
	case status == http.StatusTooManyRequests:
		family = keys.ErrKEKThrottled
	case status >= http.StatusInternalServerError || status == http.StatusRequestTimeout:
		family = keys.ErrKEKUnreachable
	default:
		family = keys.ErrKEKRefused
	}
	return fmt.Errorf("%w: %s (HTTP %d)", family, printable(service.ErrorCode()), status)
}

// transportCause drops the SDK's wrapping, which repeats request ids and endpoints,
// where the cause below is one that a caller can test for.
func transportCause(err error) error {
	for _, cause := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, cause) {
			return cause
		}
	}
	return err
}

// printable guards log lines from a code that is not one.
func printable(code string) string {
	const longest = 64
	if len(code) > longest || strings.ContainsFunc(code, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "unreadable code"
	}
	return code
}
