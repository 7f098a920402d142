package policy

import "fmt"

// Decision is an answer. The zero Decision denies. Its slices are shared with other
// decisions and must not be changed.
type Decision struct {
	Allow  bool
	Reason Reason
	// Policies are the ids of the policies that determined the decision, in order:
	// those that permitted, those that forbade, or the guards that refused.
	Policies []string
	// Errors are the ids of the policies that failed to evaluate, in order. One is
	// enough to deny. What failed is not told here, because Cedar's messages can quote
	// the request; "sallyport policy test" tells it.
	Errors []string
	// Revision is the revision of the snapshot that decided.
	Revision uint64
}

// Reason is why a decision fell as it did.
type Reason uint8

// The reasons. The zero Reason means that nothing was decided.
const (
	ReasonPermitted Reason = iota + 1 // a policy permits and nothing forbids
	ReasonRequest                     // the request has no shape that could be allowed
	ReasonGuard                       // a guard refused
	ReasonForbidden                   // a policy forbids
	ReasonNoPermit                    // no policy permits
	ReasonError                       // a policy failed to evaluate

	reasonEnd
)

var reasonNames = [reasonEnd]string{
	"undecided", "permitted", "malformed request", "refused by a guard", "forbidden", "no policy permits",
	"evaluation failed",
}

// String describes the reason in a few words.
func (r Reason) String() string {
	if r >= reasonEnd {
		return fmt.Sprintf("Reason(%d)", uint8(r))
	}
	return reasonNames[r]
}
