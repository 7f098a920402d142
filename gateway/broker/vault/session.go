package vault

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/sallyport/sallyport/crypto/secret"
	"github.com/sallyport/sallyport/gateway/fault"
)

// unending is how long a token without an end is used before it is looked at again.
const unending = time.Hour

// session is the gateway's own token. It is renewed, or replaced by signing in again,
// when two thirds of its life have gone, by whoever needs it then; nobody waits for
// that while the old one works. Nothing hangs on the token: child tokens are orphans.
type session struct {
	source *Source
	// signing holds back signing in after it was refused.
	signing breaker

	mu     sync.Mutex
	closed bool
	token  secret.Bytes
	grant  grant
	// refresh is when it is renewed or replaced, end when it ends.
	refresh, end time.Time
	flight       *flight
	running      sync.WaitGroup
}

// grant is what Vault says of a token that it made or renewed.
type grant struct {
	ttl       time.Duration // 0 if it does not end
	renewable bool
}

// flight is a renewal or a signing in that is under way.
type flight struct {
	done chan struct{}
	err  error
}

// get gives a token that works, as far as we know.
func (n *session) get(ctx context.Context) (secret.Bytes, error) {
	for {
		n.mu.Lock()
		now := n.source.clock.Now()
		live := !n.token.Wiped() && now.Before(n.end)
		token := n.token
		if live && now.Before(n.refresh) {
			n.mu.Unlock()
			return token, nil
		}
		f, err := n.begin(live)
		n.mu.Unlock()
		if live {
			return token, nil // even if it cannot be replaced now
		}
		if err != nil {
			return secret.Bytes{}, err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return secret.Bytes{}, ctx.Err()
		}
		if f.err != nil {
			return secret.Bytes{}, f.err
		}
	}
}

// begin starts a flight, or joins the one that is under way. The mutex is held.
func (n *session) begin(live bool) (*flight, error) {
	if n.flight != nil {
		return n.flight, nil
	}
	if n.closed {
		return nil, fault.New(fault.SourceUnavailable, "the source is closed")
	}
	leave, err := n.signing.enter()
	if err != nil {
		return nil, err
	}
	f := &flight{done: make(chan struct{})}
	n.flight = f
	old, grant := n.token, n.grant
	if !live {
		grant.renewable = false
	}
	// The flight belongs to the source and not to whoever happened to start it: Close
	// ends it and waits for it.
	n.running.Go(func() {
		f.err = n.fly(n.source.life, old, grant)
		if f.err == nil {
			leave(answered, nil)
		} else if reason := fault.From(f.err).Reason; reason == fault.SourceRefused || reason == fault.SourceMalformed {
			leave(unanswered, fault.From(f.err))
		} else {
			leave(noNews, nil) // the other breaker knows
		}
		n.mu.Lock()
		n.flight = nil
		n.mu.Unlock()
		close(f.done)
	})
	return f, nil
}

// fly renews the token or signs in.
func (n *session) fly(ctx context.Context, old secret.Bytes, g grant) error {
	s := n.source
	began := s.clock.Now()
	if g.renewable {
		renewed, err := s.renewOwn(ctx, old)
		// What comes back shortened is near the end that no renewal reaches.
		if err == nil && renewed.ttl > g.ttl/2 {
			n.keep(old, grant{g.ttl, renewed.renewable}, began, renewed.ttl)
			return nil
		}
	}
	token, granted, err := s.signIn(ctx)
	if err != nil {
		s.config.Logger.WarnContext(ctx, "signing in to Vault failed", "source", s.config.Name, "error", err)
		return err
	}
	n.keep(token, granted, began, granted.ttl)
	old.Wipe()
	return nil
}

func (n *session) keep(token secret.Bytes, g grant, began time.Time, ttl time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.token, n.grant = token, g
	n.refresh, n.end = began.Add(ttl*2/3), began.Add(ttl)
	if ttl == 0 {
		n.refresh, n.end = began.Add(unending), began.Add(2*unending)
	}
}

// forget drops a token that Vault does not know any more.
func (n *session) forget(token secret.Bytes) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.token.Wiped() && n.token.Equal(token) {
		n.token.Wipe()
		n.end = time.Time{}
	}
}

// close ends the token. Nothing of what was issued ends with it.
func (n *session) close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.running.Wait()
	n.mu.Lock()
	token := n.token
	n.mu.Unlock()
	if !token.Wiped() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		// If it fails, the token ends by itself.
		a, _ := n.source.send(ctx, &call{method: http.MethodPut, path: "auth/token/revoke-self", token: token})
		a.wipe()
		token.Wipe()
	}
}

// renewOwn renews the gateway's own token.
func (s *Source) renewOwn(ctx context.Context, token secret.Bytes) (grant, error) {
	c, err := s.ownCall("auth/token/renew-self", fields(nil))
	if err != nil {
		return grant{}, err
	}
	c.token, c.anonymous = token, false
	a, err := s.send(ctx, c)
	if err != nil {
		return grant{}, err
	}
	defer a.wipe()
	auth, err := authOf(a)
	if err != nil {
		return grant{}, err
	}
	return grant{auth.ttl, auth.renewable}, nil
}

// auth is the part of an answer that tells of a token.
type auth struct {
	object
	ttl       time.Duration
	renewable bool
}

func authOf(a answer) (auth, error) {
	bad := malformed("Vault's answer tells of no token")
	top, err := parse(a.text)
	if err != nil {
		return auth{}, bad
	}
	o, err := top["auth"].object()
	if err != nil {
		return auth{}, bad
	}
	ttl, err1 := o["lease_duration"].number()
	renewable, err2 := o["renewable"].flag()
	if err1 != nil || err2 != nil || ttl > maxSeconds {
		return auth{}, bad
	}
	return auth{o, time.Duration(ttl) * time.Second, renewable}, nil
}

// take gives the token itself.
func (a auth) take() (secret.Bytes, error) {
	token, err := a.object["client_token"].text()
	if err != nil || !printable(token) {
		token.Wipe()
		return secret.Bytes{}, malformed("Vault's answer tells of no token")
	}
	return token, nil
}

// printable reports whether a token can stand in a header.
func printable(s secret.Bytes) bool {
	return s.Use(func(b []byte) error {
		if len(b) == 0 || len(b) > 16<<10 {
			return errJSON
		}
		for _, c := range b {
			if c <= ' ' || c > '~' {
				return errJSON
			}
		}
		return nil
	}) == nil
}
