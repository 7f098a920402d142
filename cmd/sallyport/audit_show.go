package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/gateway/audit/tlog"
	auditv1 "github.com/sallyport/sallyport/proto/sallyport/audit/v1"
)

const decisionPrefix = "DECISION_"

var decisions = enumNames(auditv1.Decision_name, decisionPrefix)

// selection is which records to show, as flags give it.
type selection struct {
	filter       tlog.Filter
	since, until string
	decision     string
	action       string
	request      string
}

// match applies what the filter does not know: short names of methods, request ids.
func (s *selection) match(r *auditv1.Record) bool {
	return (s.action == "" || s.action == shortAction(r.GetAction())) &&
		(s.request == "" || s.request == hex.EncodeToString(r.GetRequestId()))
}

func (a *app) auditShow() *cobra.Command {
	var s selection
	var follow bool
	c := &cobra.Command{
		Use: "show DIR --key FILE", Short: "Show records of an audit log", Args: cobra.MaximumNArgs(1),
		Long: `Show records of an audit log, one a line, in order. With --output json each line is an object.
A text to match that ends in * matches what begins with the rest. Signatures are checked as records
are read; "audit verify" checks everything.`,
		Example: `  sallyport audit show /var/lib/sallyport/audit --key audit.pub --caller 'operators/*' --since 24h
  sallyport audit show /var/lib/sallyport/audit --key audit.pub --decision deny --follow --output json`,
	}
	t := a.trail(c)
	f := c.Flags()
	f.StringVar(&s.since, "since", "", "records from this time on: RFC 3339, or a duration before now such as 24h")
	f.StringVar(&s.until, "until", "", "records before this time: RFC 3339, or a duration before now")
	f.Uint64Var(&s.filter.FromSequence, "from", 0, "records from this sequence number on")
	f.StringVar(&s.filter.Caller, "caller", "", "records of this caller: a SPIFFE id or operators/{name}")
	f.StringVar(&s.action, "action", "", "records of this method, such as Decrypt, or its full name")
	f.StringVar(&s.filter.Resource, "resource", "", "records about this resource")
	f.StringVar(&s.filter.Reason, "reason", "", "records with this reason; - is success")
	f.StringVar(&s.decision, "decision", "", "records with this decision: "+strings.Join(decisions, " or "))
	f.StringVar(&s.request, "request", "", "records of this request id")
	f.BoolVar(&follow, "follow", false, "go on as the log grows, until interrupted")
	complete(c, "decision", decisions...)
	c.RunE = func(c *cobra.Command, args []string) error {
		dir, key, err := t.open(argument(args))
		if err != nil {
			return err
		}
		if err := s.settle(time.Now()); err != nil {
			return err
		}
		for e, err := range tlog.Read(c.Context(), dir, key, s.filter, follow) {
			if err != nil {
				return err
			}
			if !s.match(e.Record) {
				continue
			}
			if err := a.printEntry(e); err != nil {
				return err
			}
		}
		return nil
	}
	return c
}

// settle turns what the flags say into the filter.
func (s *selection) settle(now time.Time) (err error) {
	if s.filter.From, err = moment(s.since, now); err != nil {
		return err
	}
	if s.filter.To, err = moment(s.until, now); err != nil {
		return err
	}
	if strings.ContainsAny(s.action, ".*") {
		s.filter.Action, s.action = s.action, ""
	}
	if s.decision == "" {
		return nil
	}
	d, ok := enumValue(auditv1.Decision_value, decisionPrefix, s.decision)
	if !ok {
		return usagef("--decision is %s", strings.Join(decisions, " or "))
	}
	s.filter.Decision = auditv1.Decision(d)
	return nil
}

// moment reads a time, or a duration before now. Empty is the zero time.
func moment(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return time.Time{}, usagef("want a time such as 2026-01-02T15:04:05Z or a duration such as 24h")
	}
	return now.Add(-d), nil
}

func (a *app) printEntry(e tlog.Entry) error {
	if !a.json {
		_, err := fmt.Fprintln(a.stdout, entryText(e))
		return err
	}
	line, err := entryJSON(e)
	if err != nil {
		return err
	}
	return json.NewEncoder(a.stdout).Encode(line)
}

// entry is the JSON form of a record in its place.
type entry struct {
	Sequence  uint64          `json:"sequence"`
	Segment   uint64          `json:"segment"`
	Hash      string          `json:"hash"`      // hexadecimal
	RequestID string          `json:"requestId"` // hexadecimal, as errors and the gateway's log have it
	Record    json.RawMessage `json:"record"`
}

func entryJSON(e tlog.Entry) (entry, error) {
	record, err := messageJSON(e.Record)
	return entry{
		e.Sequence, e.Segment, hex.EncodeToString(e.Hash[:]), hex.EncodeToString(e.Record.GetRequestId()), record,
	}, err
}

// entryText gives a record in one line.
func entryText(e tlog.Entry) string {
	r := e.Record
	outcome := r.GetReason()
	if outcome == "" {
		outcome = "ok"
	}
	fields := []string{
		fmt.Sprint(e.Sequence), r.GetTime().AsTime().UTC().Format("2006-01-02T15:04:05.000Z"),
		enumName(r.GetPhase(), "PHASE_"), dash(r.GetCaller()), shortAction(r.GetAction()), dash(r.GetResource()), outcome,
	}
	if v := r.GetVersion(); v > 0 {
		fields = append(fields, fmt.Sprintf("version=%d", v))
	}
	if n := len(r.GetItems()); n > 0 {
		fields = append(fields, fmt.Sprintf("items=%d", n))
	}
	if n := r.GetCount(); n > 0 {
		fields = append(fields, fmt.Sprintf("count=%d", n))
	}
	if r.GetLease() != "" && r.GetLease() != r.GetResource() {
		fields = append(fields, "lease="+r.GetLease())
	}
	if t := r.GetLeaseExpireTime(); t != nil {
		fields = append(fields, "until="+t.AsTime().Format(time.RFC3339))
	}
	if len(r.GetPolicies()) > 0 {
		fields = append(fields, "policies="+strings.Join(r.GetPolicies(), ","))
	}
	for _, change := range r.GetChange() {
		fields = append(fields, fmt.Sprintf("%q", change))
	}
	return strings.Join(fields, " ")
}

// shortAction leaves the method's name of an action of ours.
func shortAction(action string) string {
	if i := strings.LastIndexByte(action, '.'); i >= 0 && strings.HasPrefix(action, "sallyport.") {
		return action[i+1:]
	}
	return dash(action)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
