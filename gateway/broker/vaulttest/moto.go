package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"testing"
)

// StartMoto runs what stands for AWS in EnableAWS for the time of a test, and returns
// its URL.
func StartMoto(t testing.TB) string {
	t.Helper()
	url, stop, err := LaunchMoto(t.Context())
	if err != nil {
		t.Fatal("cannot start moto, which .ci/servers/moto.sh installs: ", err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return url
}

// LaunchMoto runs moto until stop. The context bounds only the start.
func LaunchMoto(ctx context.Context) (url string, stop func() error, err error) {
	program, err := install(ctx, "moto.sh")
	if err != nil {
		return "", nil, err
	}
	port, err := freePort()
	if err != nil {
		return "", nil, err
	}
	p := &process{
		name: "moto", path: program, dir: os.TempDir(), args: []string{"-H", "127.0.0.1", "-p", strconv.Itoa(port)},
	}
	url = "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	err = p.start(ctx, func(ctx context.Context) error { return answers(ctx, url+"/moto-api/data.json") })
	if err != nil {
		return "", nil, errors.Join(err, p.kill())
	}
	return url, p.kill, nil
}

func answers(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	if err := response.Body.Close(); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	return nil
}
