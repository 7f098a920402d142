package gateway_test

import (
	"math"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/tlog"
	"github.com/sallyport/sallyport/gateway/fault"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// quickly is what a call may take to fail when it cannot be recorded:
// audit.append_timeout, and room for a busy machine.
const quickly = 10 * time.Second

// When no file can grow, as on a full disk, calls fail with AUDIT_UNAVAILABLE in
// bounded time and change nothing, readiness drops and says why; when there is
// room again, all of that ends without a restart.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	c := startChild(t, t.TempDir())
	asks := doors(t, c.gw, c.gw.Endpoints.Workload)
	workloads := controlv1.NewWorkloadServiceClient(dial(t, c.gw, c.gw.Endpoints.Control, c.gw.Endpoints.Operator))
	for _, ask := range asks {
		ask.must(t, encrypt("x"))
	}

	c.limitFiles(t, 1)
	for protocol, ask := range asks {
		begun := time.Now()
		a := ask.refused(t, encrypt("x"), fault.AuditUnavailable)
		if a.receipt != "" || len(a.payload) > 0 || time.Since(begun) > quickly {
			t.Errorf("%s: after %v: receipt %q, payload %x", protocol, time.Since(begun), a.receipt, a.payload)
		}
	}
	_, err := workloads.DisableWorkload(t.Context(), &controlv1.DisableWorkloadRequest{Name: "workloads/demo"})
	if answerOf(err).reason != fault.AuditUnavailable {
		t.Errorf("a change: %v", err)
	}
	if code, body := get(t, c.gw, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, `"audit: `) {
		t.Errorf("readiness: %d %s", code, body)
	}
	if code, _ := get(t, c.gw, "/livez"); code != http.StatusOK {
		t.Errorf("liveness: %d", code)
	}

	c.limitFiles(t, math.MaxUint64)
	for protocol, ask := range asks {
		eventually(t, patience, protocol+" serves again", func() bool { return ask(t, encrypt("x")).reason == admitted })
	}
	eventually(t, patience, "ready again", func() bool { code, _ := get(t, c.gw, "/readyz"); return code == http.StatusOK })
	list, err := workloads.ListWorkloads(t.Context(), &controlv1.ListWorkloadsRequest{})
	if err != nil || !list.GetWorkloads()[0].GetEnabled() {
		t.Errorf("the change without a record was made: %v %v", list, err)
	}
	last, err := audit.ParseReceipt(asks["gRPC"](t, encrypt("x")).receipt)
	must(t, err)
	c.stop(t)
	key := auditKey(t, c.gw.Endpoints.Audit.Key)
	if _, err := tlog.Verify(c.gw.Endpoints.Audit.Dir, key, tlog.VerifyOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := tlog.CheckReceipt(c.gw.Endpoints.Audit.Dir, key, last); err != nil {
		t.Error(err)
	}
	if strays, _ := filepath.Glob(filepath.Join(c.gw.Dir, "*.next")); len(strays) > 0 {
		t.Errorf("left behind: %v", strays)
	}
}

// limitFiles bounds the size to which the child can write its files, from now on.
func (c child) limitFiles(t *testing.T, bytes uint64) {
	t.Helper()
	limit := struct{ soft, hard uint64 }{bytes, math.MaxUint64}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(c.Process.Pid), syscall.RLIMIT_FSIZE,
		uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
}
