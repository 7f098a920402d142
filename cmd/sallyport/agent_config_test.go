package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The configurations in the manual are ones that the agent takes.
func TestDocumentedConfigurationsParse(t *testing.T) {
	for _, page := range []string{"cli.md", "secrets.md"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
		if err != nil {
			t.Fatal(err)
		}
		blocks := regexp.MustCompile(`(?m)^    connection:.*\n((    .*)?\n)+`).FindAllString(string(text), -1)
		if len(blocks) != 1 {
			t.Fatalf("%s has %d configurations", page, len(blocks))
		}
		config := regexp.MustCompile(`(?m)^    `).ReplaceAllString(blocks[0], "")
		config = regexp.MustCompile(`owner: \S+`).ReplaceAllString(config, "owner: 0:0") // there is no such user here
		file := filepath.Join(t.TempDir(), "agent.yaml")
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := readAgentConfig(file)
		if err != nil {
			t.Errorf("%s: %v\n%s", page, err, config)
			continue
		}
		if c.Connection.CA != filepath.Join(filepath.Dir(file), "ca.pem") || len(c.Secrets) != 1 {
			t.Errorf("%s: %+v", page, c)
		}
	}
}

func TestModesAndOwners(t *testing.T) {
	for mode, good := range map[string]bool{
		"": true, "0600": true, "600": true, "0o640": true, "0444": true, "0660": false, "0602": false, "0200": false,
		"rw": false, "1600": false, "0": false,
	} {
		s := agentSecret{Role: "tenants/a/secretRoles/b", Directory: "/run/x", Files: map[string]string{"x": "x"}, Mode: mode}
		var wrong []string
		s.settle(func(key, _ string, _ ...any) { wrong = append(wrong, key) })
		if (len(wrong) == 0) != good {
			t.Errorf("%q: %v", mode, wrong)
		}
	}
	for owner, want := range map[string][2]int{"": {-1, -1}, "0": {0, -1}, "root": {0, -1}, "root:0": {0, 0}, ":0": {-1, 0}, "12:34": {12, 34}} {
		uid, gid, err := ownerOf(owner)
		if err != nil || uid != want[0] || gid != want[1] {
			t.Errorf("%q: %d, %d, %v", owner, uid, gid, err)
		}
	}
	for _, owner := range []string{"no-such-user", ":no-such-group", "-5", "0:-5"} {
		if _, _, err := ownerOf(owner); err == nil {
			t.Errorf("%q is an owner", owner)
		}
	}
}

// Flags win over the configuration. Certificate and key come from one place.
func TestAConfigurationFillsWhatNoFlagSays(t *testing.T) {
	config := agentConnection{Endpoint: "config:1", CA: "config-ca", Cert: "config-cert", Key: "config-key", Timeout: time.Minute}
	n := &connection{app: &app{getenv: func(string) string { return "environment" }}, address: "flag:1", cert: "flag-cert", timeout: time.Second}
	n.configure(config, false)
	if n.address != "flag:1" || n.ca != "config-ca" || n.cert != "flag-cert" || n.key != "" || n.timeout != time.Minute {
		t.Errorf("%+v", n)
	}
	n = &connection{timeout: time.Second}
	n.configure(config, true)
	if n.address != "config:1" || n.cert != "config-cert" || n.key != "config-key" || n.timeout != time.Second {
		t.Errorf("%+v", n)
	}
}

func TestOnlyTheNumberOfAProcessIsSignalled(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	s := agentSignal{PIDFile: file}
	if pid, err := s.process(); pid != 0 || err != nil {
		t.Error(pid, err)
	}
	for text, want := range map[string]int{"123\n": 123, " 42 ": 42, "": 0, "0": 0, "1": 0, "-1": 0, "-7": 0, "x": 0, strings.Repeat("9", 30): 0} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if pid, err := s.process(); pid != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %d, %v", text, pid, err)
		}
	}
}
