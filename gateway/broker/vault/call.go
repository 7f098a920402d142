package vault

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/hashicorp/vault/api"

	"github.com/sallyport/sallyport/crypto/secret"
	"github.com/sallyport/sallyport/gateway/fault"
)

// call is one request to Vault.
type call struct {
	method string // GET or PUT, which Vault takes as POST
	path   string // below /v1/, clean
	body   *body
	// token is whose call it is; nobody's if anonymous.
	token     secret.Bytes
	anonymous bool
	// backend says that the answer depends on what is behind Vault.
	backend bool
	// mute says that what Vault says of a failure may hold secrets.
	mute bool
	// lasting calls are finished by Vault even if we are gone.
	lasting bool
	// conn is what a lasting call went over, once it is on its way.
	conn *connection
	// transport, if set, is the call's own.
	transport *http.Transport
}

// answer is a success. Its owner wipes it.
type answer struct{ text []byte }

func (a answer) wipe() { secret.Wipe(a.text) }

// send makes a call, once. Its errors are *fault.Error, or that the caller went away.
func (s *Source) send(outer context.Context, c *call) (answer, error) {
	if err := outer.Err(); err != nil {
		return answer{}, err
	}
	leave, err := s.breaker.enter()
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(outer, s.config.Timeout)
	defer cancel()
	a, err := s.exchange(withCall(ctx, c), c)
	if err == nil {
		leave(answered, nil)
		return a, nil
	}
	a.wipe()
	o, err := judge(outer, c, err)
	f := fault.From(err)
	leave(o, f)
	if f.Reason == fault.SourceUntrusted {
		s.door.reopen()
	}
	return answer{}, err
}

func (s *Source) exchange(ctx context.Context, c *call) (answer, error) {
	var r *api.Response
	var err error
	if c.method == http.MethodGet {
		r, err = s.client.Logical().ReadRawWithDataWithContext(ctx, c.path, nil)
	} else {
		r, err = s.client.Logical().WriteRawWithContext(ctx, c.path, nil)
	}
	if r != nil {
		defer r.Body.Close()
	}
	switch {
	case err != nil:
		return answer{}, err
	case r.StatusCode >= http.StatusMultipleChoices:
		// A standby that would send us elsewhere. We go only where we were told to.
		return answer{}, &api.ResponseError{StatusCode: http.StatusServiceUnavailable, Errors: []string{"a standby, which redirects"}}
	}
	a, err := readAll(r.Body)
	if err == nil {
		c.conn.wipe()
	}
	return a, err
}

// readAll reads an answer without leaving copies of it behind.
func readAll(from io.Reader) (answer, error) {
	text := make([]byte, 0, 8<<10)
	for {
		n, err := from.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		if errors.Is(err, io.EOF) {
			return answer{text}, nil
		}
		if err != nil {
			secret.Wipe(text)
			return answer{}, err
		}
		if len(text) == cap(text) {
			longer := make([]byte, len(text), 4*cap(text))
			copy(longer, text)
			secret.Wipe(text)
			text = longer
		}
	}
}

// ask makes a call with the gateway's own token. Vault refuses a dead token before it
// does anything, so signing in and asking again repeats nothing.
func (s *Source) ask(ctx context.Context, c call) (answer, error) {
	defer c.body.wipe()
	for again := false; ; again = true {
		token, err := s.session.get(ctx)
		if err != nil {
			return answer{}, err
		}
		c.token = token
		a, err := s.send(ctx, &c)
		if err == nil || again || !s.isDead(ctx, token, err) {
			return a, err
		}
		s.session.forget(token)
	}
}

// isDead reports whether a call failed because the gateway's token has ended.
func (s *Source) isDead(ctx context.Context, token secret.Bytes, err error) bool {
	if errors.Is(err, secret.ErrWiped) {
		return true
	}
	r := refusalIn(err)
	if r.status != http.StatusForbidden {
		return false
	}
	if r.says("invalid token") {
		return true
	}
	_, err = s.send(ctx, &call{method: http.MethodGet, path: "auth/token/lookup-self", token: token})
	return refusalIn(err).status == http.StatusForbidden
}

// fields builds the body of a call from what is no secret.
func fields(all map[string]any) *body {
	if all == nil {
		all = map[string]any{}
	}
	text, err := json.Marshal(all)
	if err != nil {
		panic(err) // nothing that does not marshal is ever sent
	}
	return &body{b: text}
}

// secretFields is fields with one more, which is a secret.
func secretFields(all map[string]any, name string, value secret.Bytes) (*body, error) {
	text := fields(all).b
	out := &body{}
	err := value.Use(func(b []byte) error {
		// At most six bytes for one, so that it does not grow and leave a copy.
		out.b = make([]byte, 0, len(text)+len(name)+6*len(b)+8)
		out.b = append(out.b, text[:len(text)-1]...)
		if len(all) > 0 {
			out.b = append(out.b, ',')
		}
		out.b = append(appendQuoted(out.b, []byte(name)), ':')
		out.b = append(appendQuoted(out.b, b), '}')
		return nil
	})
	return out, err
}
