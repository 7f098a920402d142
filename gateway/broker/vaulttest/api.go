package vaulttest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// callTimeout bounds a call that has no context of its own.
const callTimeout = 30 * time.Second

// A Request is one call of Vault's interface.
type Request struct {
	Method string
	Path   string // without the version: "sys/mounts"
	Token  string
	Body   any // what becomes JSON, or nil
	// WrapTTL asks for the answer to be wrapped: "60s".
	WrapTTL string
	// Certificate is what a client shows over TLS.
	Certificate *tls.Certificate
}

// StatusError is an answer that is not a success.
type StatusError struct {
	Code   int
	Errors []string
}

// Error implements error.
func (e *StatusError) Error() string {
	return fmt.Sprintf("vault: status %d: %s", e.Code, strings.Join(e.Errors, "; "))
}

// Do calls Vault as root and returns the answer, which is nil if it is empty.
func (v *Vault) Do(method, path string, body any) (map[string]any, error) {
	return v.DoAs(v.RootToken, method, path, body)
}

// DoAs calls Vault with a token; without one if it is empty.
func (v *Vault) DoAs(token, method, path string, body any) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return v.Send(ctx, Request{Method: method, Path: path, Token: token, Body: body})
}

// Must is Do for what cannot fail: it ends the test otherwise, and panics if there is
// none. It is to be called by the goroutine of the test.
func (v *Vault) Must(method, path string, body any) map[string]any {
	answer, err := v.Do(method, path, body)
	if err != nil {
		v.fail("%s %s: %v", method, path, err)
	}
	return answer
}

// Send makes a call.
func (v *Vault) Send(ctx context.Context, r Request) (map[string]any, error) {
	client := v.api.client
	if r.Certificate != nil {
		transport := v.api.transport(r.Certificate)
		defer transport.CloseIdleConnections()
		client = &http.Client{Transport: transport}
	}
	var body io.Reader
	if r.Body != nil {
		text, err := json.Marshal(r.Body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, r.Method, v.Address+"/v1/"+r.Path, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("X-Vault-Request", "true")
	if r.Token != "" {
		request.Header.Set("X-Vault-Token", r.Token)
	}
	if r.WrapTTL != "" {
		request.Header.Set("X-Vault-Wrap-TTL", r.WrapTTL)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return decode(response)
}

func decode(response *http.Response) (map[string]any, error) {
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode/100 != 2 {
		failure := &StatusError{Code: response.StatusCode}
		var said struct{ Errors []string }
		if json.Unmarshal(text, &said) == nil {
			failure.Errors = said.Errors
		}
		return nil, failure
	}
	if len(text) == 0 {
		return nil, nil
	}
	var answer map[string]any
	return answer, json.Unmarshal(text, &answer)
}

// Lookup follows keys into an answer: Lookup(answer, "auth", "client_token"). It is
// empty where there is no string.
func Lookup(answer map[string]any, keys ...string) string {
	var at any = answer
	for _, key := range keys {
		m, _ := at.(map[string]any)
		at = m[key]
	}
	s, _ := at.(string)
	return s
}

// api is how a server is reached.
type api struct {
	roots  *x509.CertPool
	client *http.Client
}

func newAPI(address, caCert string) (*api, error) {
	a := &api{}
	if caCert != "" {
		text, err := os.ReadFile(caCert)
		if err != nil {
			return nil, err
		}
		a.roots = x509.NewCertPool()
		if !a.roots.AppendCertsFromPEM(text) {
			return nil, errors.New(address + ": no certificate in the file of its authority")
		}
	}
	a.client = &http.Client{Transport: a.transport(nil)}
	return a, nil
}

func (a *api) transport(certificate *tls.Certificate) *http.Transport {
	config := &tls.Config{RootCAs: a.roots, MinVersion: tls.VersionTLS12}
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
	}
	return &http.Transport{TLSClientConfig: config, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute}
}
