// Package target is a server as its callers see it: where it listens, and the
// operations that it answers.
package target

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Endpoints are where a server is reached and with what, as sallyport-dev writes
// them to endpoints.json. The floors write the same.
type Endpoints struct {
	GRPC     string `json:"grpc,omitempty"`
	REST     string `json:"rest,omitempty"`
	Control  string `json:"control,omitempty"`
	Ops      string `json:"ops,omitempty"`
	CA       string `json:"ca"`
	Workload Pair   `json:"workload"`
	Operator Pair   `json:"operator,omitzero"`
	Audit    Audit  `json:"audit,omitzero"`
}

// Pair are the files of a certificate and its key.
type Pair struct {
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

// Audit is where the audit log lies, and the file of the key that verifies it.
type Audit struct {
	Dir string `json:"dir"`
	Key string `json:"key"`
}

// FileName is the file in a server's directory that holds its endpoints.
const FileName = "endpoints.json"

// ReadEndpoints reads a file of endpoints.
func ReadEndpoints(path string) (Endpoints, error) {
	var e Endpoints
	data, err := os.ReadFile(path)
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return e, fmt.Errorf("%s: %w", path, err)
	}
	return e, nil
}

// Write writes the endpoints into a server's directory.
func (e Endpoints) Write(dir string) error {
	data, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, FileName), append(data, '\n'), 0o600)
}
