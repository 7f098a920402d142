package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/gateway/audit"
	"github.com/sallyport/sallyport/gateway/audit/journal"
	"github.com/sallyport/sallyport/gateway/audit/tlog"
	"github.com/sallyport/sallyport/gateway/policy"
)

// The exit statuses. docs/cli.md lists them: they are an interface.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitRefused     = 3 // by the gateway: the caller, or by policy
	exitUnavailable = 4 // the gateway, or something it needs
	exitUnverified  = 5 // something was verified and does not hold
)

// kinds are the names of the exit statuses in JSON.
var kinds = [...]string{
	exitFailure: "failed", exitUsage: "usage", exitRefused: "refused", exitUnavailable: "unavailable",
	exitUnverified: "unverified",
}

// usageError is a command line that cannot be carried out.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// errUnverified is wrapped by what this program itself found not to hold.
var errUnverified = errors.New("not verified")

// unverified are the errors of the packages that verify.
var unverified = []error{
	errUnverified, audit.ErrBroken, audit.ErrReceiptSyntax, audit.ErrReceiptSignature, tlog.ErrNotInLog,
	journal.ErrForeign, policy.ErrInvalid, sallyport.DecryptionFailed, sallyport.InvalidPolicy,
}

// statusError ends the program with the status of a command that it ran. Without an
// error in it nothing is said: the command did.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("the command ended with status %d", e.status)
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

func exitStatus(err error) int {
	var reason sallyport.Reason
	var status *statusError
	switch {
	case errors.As(err, &status):
		return status.status
	case errors.As(err, new(*usageError)):
		return exitUsage
	case isAny(err, unverified):
		return exitUnverified
	case !errors.As(err, &reason):
		return exitFailure
	case reason.Refused():
		return exitRefused
	case reason.Temporary() || reason == sallyport.DeadlineExceeded:
		return exitUnavailable
	default:
		return exitFailure
	}
}

// kindOf gives the name of a status that is ours.
func kindOf(status int) string {
	if status < len(kinds) {
		return kinds[status]
	}
	return kinds[exitFailure]
}

func isAny(err error, targets []error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// problem is the JSON form of an error.
type problem struct {
	Kind      string           `json:"kind"`
	Reason    sallyport.Reason `json:"reason,omitempty"`
	Message   string           `json:"message"`
	RequestID string           `json:"requestId,omitempty"`
	Receipt   string           `json:"receipt,omitempty"`
	Hint      string           `json:"hint,omitempty"`
}

// report tells an error and gives the exit status.
func (a *app) report(cmd *cobra.Command, err error) int {
	status := exitStatus(err)
	if s := (*statusError)(nil); errors.As(err, &s) && s.err == nil {
		return status
	}
	p := problem{Kind: kindOf(status), Message: err.Error(), Hint: hint(cmd, err)}
	var e *sallyport.Error
	if errors.As(err, &e) {
		p.Reason, p.Message, p.RequestID, p.Receipt = e.Reason, e.Message, e.RequestID, e.Receipt
	}
	if a.json {
		_ = json.NewEncoder(a.stderr).Encode(map[string]problem{"error": p})
		return status
	}
	text := p.Message
	if p.Reason != "" {
		text = string(p.Reason) + ": " + text
	}
	if p.Kind != kinds[exitFailure] && status != exitUsage && (p.Reason != "" || status != exitUnverified) {
		text = p.Kind + ": " + text
	}
	if p.RequestID != "" {
		text += " (request " + p.RequestID + ")"
	}
	fmt.Fprintf(a.stderr, "sallyport: %s\n", text)
	if p.Hint != "" {
		fmt.Fprintf(a.stderr, "sallyport: %s\n", p.Hint)
	}
	return status
}

// hint says what to do about an error that people run into.
func hint(cmd *cobra.Command, err error) string {
	switch {
	case errors.As(err, new(*usageError)):
		return fmt.Sprintf("see %q", cmd.CommandPath()+" --help")
	case errors.Is(err, sallyport.HumanOnDataPlane):
		return "no person gets plaintext or a secret; such commands run as a workload: give a workload's certificate with --cert and --key"
	case errors.Is(err, sallyport.WorkloadNotRegistered):
		return `an operator registers it with "sallyport workloads register"`
	case errors.Is(err, sallyport.ForeignEnvelope):
		return "is --keyring the one that the data was encrypted under?"
	case errors.Is(err, sallyport.DecryptionFailed):
		return "the data was altered, or --context is not what it was encrypted with"
	case errors.Is(err, sallyport.RequestTooLarge):
		return "the gateway takes a file as one message; encrypt a data key for what is larger"
	default:
		return ""
	}
}
