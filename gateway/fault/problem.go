package fault

import (
	"encoding/json"
	"net/http"
)

// Problem is the body of a REST error (RFC 9457).
type Problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Reason    string `json:"reason"`
	Detail    string `json:"detail,omitempty"`
	RequestID string `json:"requestId,omitempty"`
}

// Problem gives the error's REST form.
func (e *Error) Problem() Problem {
	r := table[e.Reason]
	return Problem{
		Type: "about:blank", Title: r.message, Status: r.http,
		Reason: e.Reason.String(), Detail: e.Detail, RequestID: e.requestID,
	}
}

// JSON gives the error's REST form as JSON.
func (e *Error) JSON() []byte {
	body, err := json.Marshal(e.Problem())
	if err != nil { // strings and an int always marshal
		panic(err)
	}
	return body
}

// WriteProblem answers with the error's REST form.
func WriteProblem(w http.ResponseWriter, e *Error) {
	body := e.JSON()
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(e.Reason.HTTPStatus())
	_, _ = w.Write(append(body, '\n'))
}

// Error gives back the error that a Problem was made of. It reports false if the
// reason is not known to this build.
func (p Problem) Error() (*Error, bool) {
	r, ok := ParseReason(p.Reason)
	return &Error{Reason: r, Detail: p.Detail, requestID: p.RequestID}, ok
}
