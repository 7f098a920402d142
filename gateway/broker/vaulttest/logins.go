package vaulttest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"time"
)

// LoginRole is the name of the role in every way to log in.
const LoginRole = "sallyport"

// JWTAudience is whom the tokens for EnableJWT have to be for.
const JWTAudience = "vault"

// tokenSettings are those of the tokens that a login gives: an hour, renewable.
func tokenSettings(policies []string) map[string]any {
	return map[string]any{"token_policies": policies, "token_ttl": "1h", "token_max_ttl": "24h"}
}

func with(settings, more map[string]any) map[string]any {
	maps.Copy(settings, more)
	return settings
}

// EnableAppRole lets a role with policies log in with what it returns.
func EnableAppRole(v *Vault, policies ...string) (roleID, secretID string, err error) {
	if err := v.mount("sys/auth/approle", map[string]any{"type": "approle"}); err != nil {
		return "", "", err
	}
	role := "auth/approle/role/" + LoginRole
	if err := v.write(Request{Path: role, Body: tokenSettings(policies)}); err != nil {
		return "", "", err
	}
	id, err := v.Do(http.MethodGet, role+"/role-id", nil)
	if err != nil {
		return "", "", err
	}
	secret, err := v.Do(http.MethodPost, role+"/secret-id", map[string]any{})
	return Lookup(id, "data", "role_id"), Lookup(secret, "data", "secret_id"), err
}

// WrapSecretID makes another secret id for the role of EnableAppRole, and returns the
// token that unwraps it, once.
func WrapSecretID(v *Vault, ttl time.Duration) (wrappingToken string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	answer, err := v.Send(ctx, Request{
		Method: http.MethodPost, Path: "auth/approle/role/" + LoginRole + "/secret-id", Token: v.RootToken,
		Body: map[string]any{}, WrapTTL: ttl.String(),
	})
	return Lookup(answer, "wrap_info", "token"), err
}

// EnableCert lets whoever shows a certificate of the Vault's ClientCA log in.
func EnableCert(v *Vault, policies ...string) error {
	if err := v.mount("sys/auth/cert", map[string]any{"type": "cert"}); err != nil {
		return err
	}
	return v.write(Request{Path: "auth/cert/certs/" + LoginRole, Body: with(tokenSettings(policies), map[string]any{
		"certificate": string(v.ClientCA.PEM), "display_name": LoginRole,
	})})
}

// A Signer makes JWTs.
type Signer struct{ key *ecdsa.PrivateKey }

// NewSigner makes a signer with a key of its own.
func NewSigner() (*Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return &Signer{key: key}, err
}

// PublicPEM is the key that verifies.
func (s *Signer) PublicPEM() (string, error) {
	der, err := x509.MarshalPKIXPublicKey(s.key.Public())
	return string(encode("PUBLIC KEY", der)), err
}

// Sign makes a JWT that says what claims do, and that it is of now for five minutes
// unless they say otherwise.
func (s *Signer) Sign(claims map[string]any) (string, error) {
	now := time.Now()
	all := with(map[string]any{
		"iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}, claims)
	payload, err := json.Marshal(all)
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." +
		base64.RawURLEncoding.EncodeToString(payload)
	digest := sha256.Sum256([]byte(text))
	r, t, err := ecdsa.Sign(rand.Reader, s.key, digest[:])
	if err != nil {
		return "", err
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	t.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// EnableJWT lets whoever has a JWT of the signer that is for JWTAudience log in.
func EnableJWT(v *Vault, policies ...string) (*Signer, error) {
	signer, err := NewSigner()
	if err != nil {
		return nil, err
	}
	public, err := signer.PublicPEM()
	if err != nil {
		return nil, err
	}
	if err := v.mount("sys/auth/jwt", map[string]any{"type": "jwt"}); err != nil {
		return nil, err
	}
	return signer, v.write(
		Request{Path: "auth/jwt/config", Body: map[string]any{"jwt_validation_pubkeys": []string{public}}},
		Request{Path: "auth/jwt/role/" + LoginRole, Body: with(tokenSettings(policies), map[string]any{
			"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{JWTAudience},
		})},
	)
}

// Login logs in at a mount of auth and returns the token and its accessor.
func (v *Vault) Login(mount string, body map[string]any) (token, accessor string, err error) {
	answer, err := v.DoAs("", http.MethodPost, "auth/"+mount+"/login", body)
	return Lookup(answer, "auth", "client_token"), Lookup(answer, "auth", "accessor"), err
}
