package target

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// replyLimit bounds a reply: a batch of 4096 items of a kibibyte, and their base64.
const replyLimit = 16 << 20

// REST asks over HTTPS with JSON bodies.
type REST struct {
	http *http.Client
	base string // up to the verb
}

// NewREST makes a client for one keyring. Callers at once have a connection each, as
// HTTP/1.1 wants it; with http2 they share one.
func NewREST(e Endpoints, keyring string, callers int, http2 bool) (*REST, error) {
	config, err := e.TLS(e.Workload)
	if err != nil {
		return nil, err
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	return &REST{
		http: &http.Client{
			Timeout: 30 * time.Second,
			Transport: &http.Transport{
				TLSClientConfig: config, MaxIdleConnsPerHost: callers, Protocols: protocols,
				DisableCompression: true,
			},
		},
		base: withScheme("https", e.REST) + "/v1/" + keyring + ":",
	}, nil
}

// Close implements Client.
func (c *REST) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// jsonItem is the JSON of an item, of a request or a reply.
type jsonItem struct {
	Plaintext  []byte            `json:"plaintext,omitempty"`
	Ciphertext []byte            `json:"ciphertext,omitempty"`
	Context    map[string]string `json:"context,omitempty"`
	Error      *Refusal          `json:"error,omitempty"`
}

// Refusal is a call, or an item of a batch, that was answered with a reason.
type Refusal struct {
	Reason string `json:"reason"`
	text   string
}

// Error gives the reason and the answer.
func (r *Refusal) Error() string { return strings.TrimSuffix(r.Reason+": "+r.text, ": ") }

// refusal reads the problem (RFC 9457) that a call was answered with.
func refusal(verb string, code int, body []byte) *Refusal {
	r := &Refusal{}
	if err := json.Unmarshal(body, r); err != nil || r.Reason == "" {
		r.Reason = "HTTP_" + strconv.Itoa(code)
	}
	r.text = fmt.Sprintf("%s answers %d: %s", verb, code, body)
	return r
}

type jsonBatch struct {
	Items   []jsonItem `json:"items,omitempty"`
	Results []jsonItem `json:"results,omitempty"`
}

// Encrypt implements Client.
func (c *REST) Encrypt(ctx context.Context, plaintext Item) ([]byte, error) {
	var reply jsonItem
	err := c.post(ctx, "encrypt", jsonItem{Plaintext: plaintext.Data, Context: plaintext.Context}, &reply)
	return reply.Ciphertext, err
}

// Decrypt implements Client.
func (c *REST) Decrypt(ctx context.Context, envelope Item) ([]byte, error) {
	var reply jsonItem
	err := c.post(ctx, "decrypt", jsonItem{Ciphertext: envelope.Data, Context: envelope.Context}, &reply)
	return reply.Plaintext, err
}

// EncryptBatch implements Client.
func (c *REST) EncryptBatch(ctx context.Context, plaintexts []Item) ([][]byte, error) {
	items := make([]jsonItem, len(plaintexts))
	for i, p := range plaintexts {
		items[i] = jsonItem{Plaintext: p.Data, Context: p.Context}
	}
	return c.batch(ctx, "batchEncrypt", items, func(r jsonItem) []byte { return r.Ciphertext })
}

// DecryptBatch implements Client.
func (c *REST) DecryptBatch(ctx context.Context, envelopes []Item) ([][]byte, error) {
	items := make([]jsonItem, len(envelopes))
	for i, e := range envelopes {
		items[i] = jsonItem{Ciphertext: e.Data, Context: e.Context}
	}
	return c.batch(ctx, "batchDecrypt", items, func(r jsonItem) []byte { return r.Plaintext })
}

func (c *REST) batch(ctx context.Context, verb string, items []jsonItem, result func(jsonItem) []byte) ([][]byte, error) {
	var reply jsonBatch
	if err := c.post(ctx, verb, jsonBatch{Items: items}, &reply); err != nil {
		return nil, err
	}
	if len(reply.Results) != len(items) {
		return nil, fmt.Errorf("%d results for %d items", len(reply.Results), len(items))
	}
	results := make([][]byte, len(items))
	for i, r := range reply.Results {
		if r.Error != nil {
			return nil, r.Error
		}
		results[i] = result(r)
	}
	return results, nil
}

func (c *REST) post(ctx context.Context, verb string, request, reply any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+verb, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(io.LimitReader(answer.Body, replyLimit))
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return refusal(verb, answer.StatusCode, data)
	}
	return json.Unmarshal(data, reply)
}
