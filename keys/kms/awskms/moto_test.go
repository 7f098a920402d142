package awskms

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

const (
	installTimeout = 5 * time.Minute
	startTimeout   = time.Minute
	region         = "eu-central-1"
)

// motoURL is where the KMS of this test run answers.
var motoURL string

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run starts moto, an implementation of the KMS protocol over HTTP that is not
// ours, for the time of the tests.
func run(m *testing.M) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	url, stop, err := startMoto(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot start moto, which .ci/servers/moto.sh installs:", err)
		return 1
	}
	defer stop()
	motoURL = url
	return m.Run()
}

func startMoto(ctx context.Context) (url string, stop func(), err error) {
	root, err := repository()
	if err != nil {
		return "", nil, err
	}
	server, err := install(ctx, root)
	if err != nil {
		return "", nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	address := listener.Addr().String()
	_, port, err := net.SplitHostPort(address)
	if err = errors.Join(err, listener.Close()); err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, server, "-H", "127.0.0.1", "-p", port)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill() // it has no state worth a farewell
		_ = cmd.Wait()
	}
	url = "http://" + address
	if err := waitFor(ctx, url+"/moto-api/data.json"); err != nil {
		stop()
		return "", nil, err
	}
	return url, stop, nil
}

// install runs the script that installs moto if need be, and returns its server.
func install(ctx context.Context, root string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(root, ".ci", "servers", "moto.sh"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// repository walks up to the directory with go.mod.
func repository() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the test")
		}
		dir = parent
	}
	return "", err
}

func waitFor(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			return response.Body.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("moto does not answer: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// admin is a client for what a KMS administrator does.
func admin() *kms.Client {
	return kms.New(kms.Options{
		Region:       region,
		BaseEndpoint: aws.String(motoURL),
		Credentials:  credentials.NewStaticCredentialsProvider("admin", "secret", ""),
	})
}

func createKey(t *testing.T) (keyARN string) {
	t.Helper()
	out, err := admin().CreateKey(t.Context(), &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	return aws.ToString(out.KeyMetadata.Arn)
}

// credentialsFile writes a shared credentials file.
func credentialsFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "credentials")
	content := "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret\n"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// open makes a KEK for a key behind an endpoint.
func open(t *testing.T, keyARN, endpoint string, r Retry) *KEK {
	t.Helper()
	k, err := New(Config{
		KeyARN:      keyARN,
		Endpoint:    endpoint,
		Credentials: Credentials{File: credentialsFile(t)},
		Retry:       r,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}
