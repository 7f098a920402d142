package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/sallyport/sallyport/crypto/secret"
	"github.com/sallyport/sallyport/gateway/fault"
)

// maxSaid is how much of what Vault says about a failure goes into our log.
const maxSaid = 256

// refusal is an answer that is not a success. It is the cause of faults, and stays
// inside the gateway.
type refusal struct {
	status int
	said   []string // empty if the answer is not one of Vault's
	mute   bool     // what was said may hold secrets
}

// Error gives what Vault said, shortened.
func (r *refusal) Error() string {
	text := fmt.Sprintf("Vault answered %d", r.status)
	if r.mute || len(r.said) == 0 {
		return text
	}
	said := strings.Join(strings.Fields(strings.Join(r.said, "; ")), " ")
	if len(said) > maxSaid {
		said = strings.ToValidUTF8(said[:maxSaid], "") + " …"
	}
	return text + ": " + said
}

// says reports whether Vault's words contain one of the phrases. Vault has no codes
// for what it refuses; these are the texts of versions 1.13 to 1.21, and OpenBao's.
func (r *refusal) says(phrases ...string) bool {
	for _, said := range r.said {
		for _, p := range phrases {
			if strings.Contains(said, p) {
				return true
			}
		}
	}
	return false
}

// refusalIn gives the refusal in err's tree, or one that says nothing.
func refusalIn(err error) *refusal {
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	return &refusal{}
}

// definite reports whether err is Vault's own answer, so that the call is over. A
// proxy's answer, or none, says nothing of what Vault may still be doing.
func definite(err error) bool { return len(refusalIn(err).said) > 0 }

// malformed is an answer of the wrong shape. Nothing of the answer is in it.
func malformed(detail string) *fault.Error { return fault.New(fault.SourceMalformed, detail) }

// judge turns the error of a call into a reason, and says what it means for the
// breaker. outer is the caller's context, c the call.
func judge(outer context.Context, c *call, err error) (outcome, error) {
	var said *api.ResponseError
	var untrusted *tls.CertificateVerificationError
	var hostname x509.HostnameError
	var authority x509.UnknownAuthorityError
	switch {
	case errors.Is(err, secret.ErrWiped):
		return noNews, fault.Wrap(fault.SourceUnavailable, "the gateway's token is being replaced", err)
	case errors.Is(outer.Err(), context.Canceled):
		return noNews, outer.Err()
	case errors.Is(err, errTooLong):
		return answered, malformed("Vault's answer is too long")
	case errors.As(err, &said):
		return judgeStatus(c, said)
	case errors.As(err, &untrusted), errors.As(err, &hostname), errors.As(err, &authority):
		return unanswered, fault.Wrap(fault.SourceUntrusted, "", capped(err))
	}
	f := fault.Wrap(fault.SourceUnavailable, "", capped(err))
	var late interface{ Timeout() bool }
	if errors.As(err, &late) && late.Timeout() && (c.backend || outer.Err() != nil) {
		// The database behind Vault may hang, or the caller have been in a hurry.
		return noNews, f
	}
	return unanswered, f
}

func judgeStatus(c *call, said *api.ResponseError) (outcome, error) {
	r := &refusal{status: said.StatusCode, mute: c.mute}
	if !said.RawError {
		r.said = said.Errors
	}
	is := func(reason fault.Reason, detail string, o outcome) (outcome, error) {
		return o, fault.Wrap(reason, detail, r)
	}
	switch {
	case r.status == http.StatusTooManyRequests, r.says("server is overloaded", "rate limit quota exceeded"):
		return is(fault.SourceThrottled, "", answered)
	case r.status == http.StatusNotImplemented, r.says("Vault is sealed", "is sealed"):
		return is(fault.SourceSealed, "", unanswered)
	case r.status == 472, r.status == 473, r.says("node not active", "standby"):
		return is(fault.SourceStandby, "", unanswered)
	case r.status >= 502 && r.status <= 504:
		return is(fault.SourceUnavailable, "", unanswered)
	case r.status >= 500, r.status == http.StatusPreconditionFailed:
		return is(fault.SourceUnavailable, "Vault, or what is behind it, failed", answered)
	}
	return is(fault.SourceRefused, "", answered)
}

// capped keeps long and foreign texts out of our log.
func capped(err error) error {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > maxSaid {
		text = strings.ToValidUTF8(text[:maxSaid], "") + " …"
	}
	return errors.New(text)
}
