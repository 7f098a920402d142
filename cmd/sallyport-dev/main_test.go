package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary is the command, where it has the command's name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "sallyport-dev" {
		main()
		return
	}
	os.Exit(m.Run())
}

// install puts this command and the one that its instructions call side by side.
func install(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", dir+"/", "../sallyport").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return itself(t, dir)
}

// itself puts this command into a directory.
func itself(t *testing.T, dir string) string {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	binary, err := os.ReadFile(self)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "sallyport-dev"), binary, 0o700))
	return dir
}

// dev is a sallyport-dev that runs.
type dev struct {
	*exec.Cmd
	block string // what it printed, down to "ready"
}

func start(t *testing.T, bin, dir string, more ...string) dev {
	t.Helper()
	const free = "127.0.0.1:0"
	cmd := exec.Command(filepath.Join(bin, "sallyport-dev"),
		append([]string{"--dir", dir, "--grpc", free, "--rest", free, "--control", free, "--ops", free}, more...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	d := dev{Cmd: cmd}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() == "ready" {
			return d
		}
		d.block += lines.Text() + "\n"
	}
	t.Fatalf("it ended without being ready, after:\n%s", d.block)
	return d
}

func (d dev) stop(t *testing.T) {
	t.Helper()
	must(t, d.Process.Signal(syscall.SIGTERM))
	must(t, d.Wait())
}

// shell runs what a person would paste, and gives what they would see.
func shell(t *testing.T, script string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-e")
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// The printed block works as printed, in a directory whose name needs quoting; and
// a second start on the same directory finds its keys and its data.
func TestFirstAndSecondStart(t *testing.T) {
	bin, dir := install(t), filepath.Join(t.TempDir(), "it's a dir")
	first := start(t, bin, dir)
	seen := shell(t, first.block)
	for _, want := range []string{
		`{"plaintext":"YXR0YWNrIGF0IGRhd24=","version":1}`, `"reason":"HUMAN_ON_DATA_PLANE"`,
		"spiffe://dev.sallyport/demo Decrypt tenants/demo/keyrings/default ok", "ok: dev.sallyport/audit",
	} {
		if !strings.Contains(seen, want) {
			t.Errorf("%s is not in what the block printed:\n%s", want, seen)
		}
	}
	envelope, _, _ := strings.Cut(seen, "\n")
	credentials := certificates(t, dir)
	checkEndpoints(t, dir)
	first.stop(t)

	second := start(t, bin, dir)
	if again := certificates(t, dir); again != credentials {
		t.Error("the second start made new certificates")
	}
	for line := range strings.Lines(second.block) {
		if strings.HasPrefix(line, "curl") && strings.Contains(line, "workload.pem") && strings.Contains(line, ":decrypt") {
			if seen := shell(t, "C='"+envelope+"'\n"+line); !strings.Contains(seen, "YXR0YWNrIGF0IGRhd24=") {
				t.Errorf("what the first start sealed: %s", seen)
			}
		}
	}
	second.stop(t)
}

// certificates are the credentials in the directory, one after the other.
func certificates(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	for _, name := range []string{"ca.pem", "server.pem", "workload.pem", "workload.key", "operator.pem", "operator.key", "kek", "audit.key"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		all.Write(data)
	}
	return all.String()
}

// endpoints.json has every field, in both forms; paths are absolute, and there is
// something there.
func checkEndpoints(t *testing.T, dir string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "endpoints.json"))
	must(t, err)
	var e map[string]any
	must(t, json.Unmarshal(data, &e))
	for _, name := range []string{"grpc", "rest", "control", "ops"} {
		if address, _ := e[name].(string); !strings.HasPrefix(address, "127.0.0.1:") || strings.HasSuffix(address, ":0") {
			t.Errorf("%s is %v", name, e[name])
		}
	}
	for _, name := range []string{"ca", "workload.cert", "workload.key", "operator.cert", "operator.key", "audit.dir", "audit.key"} {
		path, _ := e[name].(string)
		if _, err := os.Stat(path); err != nil || !filepath.IsAbs(path) {
			t.Errorf("%s is %q: %v", name, path, err)
		}
		if group, field, nested := strings.Cut(name, "."); nested {
			if g, _ := e[group].(map[string]any); g[field] != path {
				t.Errorf("%s is not in the nested form", name)
			}
		}
	}
}

// Only what was asked for: wrong flags are refused, and nothing is made.
func TestUsage(t *testing.T) {
	bin, dir := itself(t, t.TempDir()), filepath.Join(t.TempDir(), "dir")
	for _, args := range [][]string{{}, {"--dir", dir, "extra"}, {"--dir", dir, "--unknown"}} {
		err := exec.CommandContext(t.Context(), filepath.Join(bin, "sallyport-dev"), args...).Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 {
			t.Errorf("%q: %v", args, err)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory was made")
	}
}

// A file adds sources. One that is wrong stops the start; a Vault that is not there does
// not.
func TestSources(t *testing.T) {
	bin, files := install(t), t.TempDir()
	file := func(text string) string {
		path := filepath.Join(files, "sources.yaml")
		must(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	const vault = "sources: {vault: [{name: acme, address: 'http://127.0.0.1:9', app_role: {role_id: r, secret_id_file: secret-id}}]}"
	for text, want := range map[string]string{
		"sources: {vault: [{name: acme, address: nowhere}]}": "sources.vault[0].address must be",
		"listen: {grpc: '127.0.0.1:1'}":                      "field listen not found",
		strings.ReplaceAll(vault, "acme", "local"):           "occurs twice",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		out, err := exec.CommandContext(ctx, filepath.Join(bin, "sallyport-dev"),
			"--dir", filepath.Join(t.TempDir(), "dev"), "--sources", file(text)).CombinedOutput()
		cancel()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v: %s", text, err, out)
		}
	}
	dir := filepath.Join(t.TempDir(), "dev")
	d := start(t, bin, dir, "--sources", file(vault))
	seen := shell(t, quote(filepath.Join(bin, "sallyport"))+" sources --profile "+quote(filepath.Join(dir, "endpoints.json")))
	if !strings.Contains(seen, "sources/local") || !strings.Contains(seen, "sources/acme") {
		t.Errorf("the sources are:\n%s", seen)
	}
	d.stop(t)
}

func TestQuote(t *testing.T) {
	for _, s := range []string{"plain/path-1.2_@+", "a b", "it's", "$HOME", "a;b", "`x`", "a\nb", `"`, `\`} {
		if got := shell(t, "printf %s "+quote(s)); got != s {
			t.Errorf("%q is quoted as %s", s, quote(s))
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
