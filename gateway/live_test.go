package gateway_test

import (
	"crypto/tls"
	"os"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/gateway/development"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/gatewaytest"
	"github.com/sallyport/sallyport/gateway/host"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// reloaded bounds the time until a changed file is in force: the stated interval,
// and some room for a busy machine.
const reloaded = host.ReloadInterval + 5*time.Second

// The connections below are made and used before the change: what is refused is
// the next call on the same connection.

func TestDisablingTakesEffectOnOpenConnections(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	admin := controlv1.NewWorkloadServiceClient(gw.Dial(gw.Endpoints.Control, gw.Endpoints.Operator))
	for protocol, ask := range doors(t, gw, gw.Endpoints.Workload) {
		t.Run(protocol, func(t *testing.T) {
			ask.must(t, encrypt("x"))
			if _, err := admin.DisableWorkload(t.Context(), &controlv1.DisableWorkloadRequest{Name: "workloads/demo"}); err != nil {
				t.Fatal(err)
			}
			ask.refused(t, encrypt("x"), fault.WorkloadDisabled)
			if _, err := admin.EnableWorkload(t.Context(), &controlv1.EnableWorkloadRequest{Name: "workloads/demo"}); err != nil {
				t.Fatal(err)
			}
			ask.must(t, encrypt("x"))
		})
	}
}

func TestRevocationTakesEffectOnOpenConnections(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	admin := controlv1.NewWorkloadServiceClient(gw.Dial(gw.Endpoints.Control, gw.Endpoints.Operator))
	asks := doors(t, gw, gw.Endpoints.Workload)
	for _, ask := range asks {
		ask.must(t, encrypt("x"))
	}
	revoke(t, admin, gw.Endpoints.Workload)
	for _, ask := range asks {
		ask.refused(t, encrypt("x"), fault.CertificateRevoked)
	}
	// It is the certificate that is revoked, not the workload.
	next := gw.Issue(gw.Workloads, development.Leaf{SPIFFEID: development.DemoWorkload})
	overGRPC(t, gw, next).must(t, encrypt("x"))
}

func TestExpiryTakesEffectOnOpenConnections(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	ends := time.Now().Add(3 * time.Second)
	asks := doors(t, gw, gw.Issue(gw.Workloads, development.Leaf{SPIFFEID: development.DemoWorkload, NotAfter: ends}))
	for _, ask := range asks {
		ask.must(t, encrypt("x"))
	}
	eventually(t, patience, "the certificate's end", func() bool { return time.Now().After(ends.Truncate(time.Second).Add(time.Second)) })
	for _, ask := range asks {
		ask.refused(t, encrypt("x"), fault.CertificateExpired)
	}
}

// An authority that leaves the bundle vouches for nobody, on open connections too,
// within the interval at which files are read.
func TestTrustBundleReload(t *testing.T) {
	t.Parallel()
	var bundle string
	gw := gatewaytest.Start(t, gatewaytest.WithConfig(func(c *config.Config) { bundle = c.Trust.Domains[0].Bundle }))
	asks := doors(t, gw, gw.Endpoints.Workload)
	for _, ask := range asks {
		ask.must(t, encrypt("x"))
	}
	before := read(t, bundle)
	next, err := development.NewAuthority(t.TempDir(), "next")
	if err != nil {
		t.Fatal(err)
	}
	replace(t, bundle, read(t, next.CertFile))
	for protocol, ask := range asks {
		eventually(t, reloaded, protocol+": the old authority is out", func() bool {
			return ask(t, encrypt("x")).reason == fault.CertificateUntrusted
		})
	}
	overGRPC(t, gw, gw.Issue(next, development.Leaf{SPIFFEID: development.DemoWorkload})).must(t, encrypt("x"))

	// A bundle that would let a person's authority vouch for workloads is not taken;
	// package host tests the other ways to spoil a file.
	replace(t, bundle, read(t, gw.Operators.CertFile))
	want := renewServer(t, gw)
	eventually(t, reloaded, "the files are read again", func() bool { return serverSerial(t, gw) == want })
	for protocol, ask := range asks {
		if a := ask(t, encrypt("x")); a.reason != fault.CertificateUntrusted {
			t.Errorf("%s: %v", protocol, a.reason)
		}
	}
	replace(t, bundle, before)
	eventually(t, reloaded, "the old authority is back", func() bool { return asks["gRPC"](t, encrypt("x")).reason == admitted })
}

// The server's certificate changes without a restart; one that does not fit its
// key, or is not there, leaves the old one in force.
func TestServerCertificateReload(t *testing.T) {
	t.Parallel()
	gw := gatewaytest.Start(t)
	ask := overREST(t, gw, gw.Endpoints.Workload)
	ask.must(t, encrypt("x"))
	want := renewServer(t, gw)
	eventually(t, reloaded, "the new certificate is shown", func() bool { return serverSerial(t, gw) == want })

	replace(t, gw.Dir+"/server.pem", []byte("garbage"))
	// The bundle is read in the same round, so that its change tells that the
	// certificate's has been tried.
	bundle := gw.Dir + "/workload-ca.pem"
	good := read(t, bundle)
	stranger, err := development.NewAuthority(t.TempDir(), "stranger")
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range [][]byte{read(t, stranger.CertFile), good} {
		replace(t, bundle, content)
		admits := string(content) == string(good)
		eventually(t, reloaded, "the files are read again", func() bool { return (ask(t, encrypt("x")).reason == admitted) == admits })
	}
	if got := serverSerial(t, gw); got != want {
		t.Errorf("the certificate shown is %s, want %s", got, want)
	}
}

// renewServer replaces the server's certificate, and gives the new one's serial
// number.
func renewServer(t *testing.T, gw *gatewaytest.Gateway) string {
	t.Helper()
	ca, err := development.NewAuthority(gw.Dir, "ca")
	if err != nil {
		t.Fatal(err)
	}
	fresh := gw.Issue(ca, development.Leaf{CommonName: "localhost", Server: true})
	cert, err := tls.LoadX509KeyPair(fresh.Cert, fresh.Key)
	if err != nil {
		t.Fatal(err)
	}
	// Key and certificate cannot change in one step: between the two the pair does not
	// fit, and the old one stays in force.
	replace(t, gw.Dir+"/server.key", read(t, fresh.Key))
	replace(t, gw.Dir+"/server.pem", read(t, fresh.Cert))
	return cert.Leaf.SerialNumber.String()
}

// serverSerial is the serial number of the certificate that the REST listener
// shows.
func serverSerial(t *testing.T, gw *gatewaytest.Gateway) string {
	t.Helper()
	conn, err := dialTLS(t, gw.Endpoints.REST, clientTLS(t, gw, gw.Endpoints.Workload, "http/1.1"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return data
}

func replace(t *testing.T, path string, data []byte) {
	t.Helper()
	must(t, os.WriteFile(path+".new", data, 0o600))
	must(t, os.Rename(path+".new", path))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
