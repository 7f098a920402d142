package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	sallyport "github.com/sallyport/sallyport/clients/go"
)

// connection is how a command reaches the gateway. A flag wins over its environment
// variable, and that over the profile.
type connection struct {
	app *app

	profile    string
	address    string
	ca         string
	cert, key  string
	serverName string
	agent      string
	serverID   string
	timeout    time.Duration

	data bool // the data plane, as a workload; otherwise the control plane
}

// connects gives a command, and those below it, the flags of a connection.
func (a *app) connects(c *cobra.Command, data bool) *connection {
	n := &connection{app: a, data: data}
	f := c.PersistentFlags()
	f.StringVar(&n.profile, "profile", "", "endpoints.json of a gateway, as sallyport-dev writes it (env SALLYPORT_PROFILE)")
	if data {
		f.StringVar(&n.address, "endpoint", "", "host:port of the gateway's data plane (env SALLYPORT_ENDPOINT)")
	} else {
		f.StringVar(&n.address, "control", "", "host:port of the gateway's control plane (env SALLYPORT_CONTROL)")
	}
	f.StringVar(&n.ca, "ca", "", "PEM file of the authorities that vouch for the gateway (env SALLYPORT_CA)")
	f.StringVar(&n.cert, "cert", "", "PEM file of the caller's certificate chain (env SALLYPORT_CERT)")
	f.StringVar(&n.key, "key", "", "PEM file of the caller's private key (env SALLYPORT_KEY)")
	f.StringVar(&n.serverName, "server-name", "", "name in the gateway's certificate, if not the host of the address (env SALLYPORT_SERVER_NAME)")
	f.StringVar(&n.agent, "workload-api", "", "address of the SPIFFE Workload API, instead of --cert and --key (env SALLYPORT_WORKLOAD_API)")
	f.StringVar(&n.serverID, "server-id", "", "SPIFFE id of the gateway, with --workload-api, instead of --ca (env SALLYPORT_SERVER_ID)")
	f.DurationVar(&n.timeout, "timeout", 10*time.Second, "how long a call may take, all attempts together")
	return n
}

// profile is the part of endpoints.json that the command line reads.
type profile struct {
	GRPC     string `json:"grpc"`
	Control  string `json:"control"`
	CA       string `json:"ca"`
	Workload struct {
		Cert string `json:"cert"`
		Key  string `json:"key"`
	} `json:"workload"`
	Operator struct {
		Cert string `json:"cert"`
		Key  string `json:"key"`
	} `json:"operator"`
	Audit struct {
		Dir string `json:"dir"`
		Key string `json:"key"`
	} `json:"audit"`
}

// readProfile reads the profile of a flag or of the environment. Relative paths in
// it are relative to it. Without one, all is empty.
func (a *app) readProfile(flag string) (profile, error) {
	var p profile
	file := first(flag, a.getenv("SALLYPORT_PROFILE"))
	if file == "" {
		return p, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return p, fmt.Errorf("profile: %w", err)
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return p, fmt.Errorf("profile %s: %w", file, err)
	}
	for _, path := range []*string{&p.CA, &p.Workload.Cert, &p.Workload.Key, &p.Operator.Cert, &p.Operator.Key, &p.Audit.Dir, &p.Audit.Key} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(filepath.Dir(file), *path)
		}
	}
	return p, nil
}

// options settles address and options by precedence.
func (n *connection) options() (string, sallyport.Options, error) {
	p, err := n.app.readProfile(n.profile)
	if err != nil {
		return "", sallyport.Options{}, err
	}
	env := n.app.getenv
	address, as := first(n.address, env("SALLYPORT_CONTROL"), p.Control), p.Operator
	flag := "--control"
	if n.data {
		address, as = first(n.address, env("SALLYPORT_ENDPOINT"), p.GRPC), p.Workload
		flag = "--endpoint"
	}
	if address == "" {
		return "", sallyport.Options{}, usagef("the gateway's address is missing: give %s or --profile", flag)
	}
	o := sallyport.Options{Timeout: n.timeout}
	ca := first(n.ca, env("SALLYPORT_CA"), p.CA)
	serverName := first(n.serverName, env("SALLYPORT_SERVER_NAME"))

	// Certificate and key come from one place, so that the halves of two are never
	// put together; naming one way to have them overrides the other ways below it.
	agent := n.agent
	cert, key := n.cert, n.key
	if agent == "" && cert == "" && key == "" {
		agent, cert, key = env("SALLYPORT_WORKLOAD_API"), env("SALLYPORT_CERT"), env("SALLYPORT_KEY")
	}
	if agent == "" && cert == "" && key == "" {
		cert, key = as.Cert, as.Key
	}
	switch {
	case agent != "" && cert+key != "":
		return "", o, usagef("--workload-api and --cert exclude each other")
	case agent != "":
		api := sallyport.WorkloadAPI{Addr: agent, ServerID: first(n.serverID, env("SALLYPORT_SERVER_ID"))}
		if api.ServerID == "" {
			api.CA, api.ServerName = ca, serverName
		}
		if api.ServerID == "" && api.CA == "" {
			return "", o, usagef("who the gateway is, is missing: give --server-id or --ca")
		}
		o.Credentials = api
	case cert == "" || key == "":
		return "", o, usagef("the caller's certificate is missing: give --cert and --key, --workload-api or --profile")
	case ca == "":
		return "", o, usagef("the gateway's authority is missing: give --ca or --profile")
	default:
		o.Credentials = sallyport.Files{Certificate: cert, Key: key, CA: ca, ServerName: serverName}
	}
	return address, o, nil
}

// withData calls the data plane.
func (n *connection) withData(ctx context.Context, f func(context.Context, *sallyport.Client) error) error {
	address, o, err := n.options()
	if err != nil {
		return err
	}
	opening, cancel := context.WithTimeout(ctx, n.timeout)
	defer cancel()
	client, err := sallyport.Dial(opening, address, o)
	if err != nil {
		return err
	}
	return errors.Join(f(ctx, client), client.Close())
}

// withControl calls the control plane.
func (n *connection) withControl(ctx context.Context, f func(context.Context, *sallyport.Control) error) error {
	address, o, err := n.options()
	if err != nil {
		return err
	}
	opening, cancel := context.WithTimeout(ctx, n.timeout)
	defer cancel()
	control, err := sallyport.DialControl(opening, address, o)
	if err != nil {
		return err
	}
	return errors.Join(f(ctx, control), control.Close())
}

// first gives the first value that is not empty.
func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
