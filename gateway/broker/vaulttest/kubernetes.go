package vaulttest

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
)

// Kubernetes is as much of a cluster as Vault needs to verify the token of a service
// account: the review of tokens.
type Kubernetes struct {
	// URL is where its interface answers.
	URL string

	signer *Signer
	mu     sync.Mutex
	tokens map[string]account
}

type account struct{ namespace, name, uid string }

const reviewerToken = "vaulttest-reviewer"

// EnableKubernetes lets the service accounts called LoginRole log in, whatever their
// namespace. The cluster ends with the Vault.
func EnableKubernetes(v *Vault, policies ...string) (*Kubernetes, error) {
	signer, err := NewSigner()
	if err != nil {
		return nil, err
	}
	k := &Kubernetes{signer: signer, tokens: map[string]account{}}
	server := httptest.NewServer(http.HandlerFunc(k.review))
	v.stops = append(v.stops, server.Close)
	k.URL = server.URL
	if err := v.mount("sys/auth/kubernetes", map[string]any{"type": "kubernetes"}); err != nil {
		return nil, err
	}
	return k, v.write(
		Request{Path: "auth/kubernetes/config", Body: map[string]any{
			"kubernetes_host": k.URL, "token_reviewer_jwt": reviewerToken, "disable_local_ca_jwt": true,
		}},
		Request{Path: "auth/kubernetes/role/" + LoginRole, Body: with(tokenSettings(policies), map[string]any{
			"bound_service_account_names": []string{LoginRole}, "bound_service_account_namespaces": []string{"*"},
		})},
	)
}

// Token is what a pod of the service account finds in its file system.
func (k *Kubernetes) Token(namespace, name string) (string, error) {
	a := account{namespace: namespace, name: name, uid: rand.Text()}
	token, err := k.signer.Sign(map[string]any{
		"iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:" + namespace + ":" + name,
		"kubernetes.io": map[string]any{
			"namespace": namespace, "serviceaccount": map[string]any{"name": name, "uid": a.uid},
		},
	})
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tokens[token] = a
	return token, err
}

// Delete makes the cluster forget a token, as when its pod is gone.
func (k *Kubernetes) Delete(token string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.tokens, token)
}

// review answers a TokenReview.
func (k *Kubernetes) review(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Spec       struct {
			Token     string   `json:"token"`
			Audiences []string `json:"audiences"`
		} `json:"spec"`
	}
	switch {
	case !strings.HasSuffix(r.URL.Path, "/apis/authentication.k8s.io/v1/tokenreviews"):
		http.NotFound(w, r)
		return
	case r.Header.Get("Authorization") != "Bearer "+reviewerToken:
		http.Error(w, "not the reviewer", http.StatusUnauthorized)
		return
	case json.NewDecoder(r.Body).Decode(&asked) != nil:
		http.Error(w, "not JSON", http.StatusBadRequest)
		return
	}
	k.mu.Lock()
	a, known := k.tokens[asked.Spec.Token]
	k.mu.Unlock()
	status := map[string]any{"authenticated": known}
	if known {
		status["user"] = map[string]any{"username": "system:serviceaccount:" + a.namespace + ":" + a.name, "uid": a.uid}
		status["audiences"] = asked.Spec.Audiences
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": asked.APIVersion, "kind": asked.Kind, "status": status})
}
