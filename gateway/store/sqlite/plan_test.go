package sqlite

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/keys"
)

// Every read must search an index: a scan that nobody notices in a test is an outage
// with a million keyrings.
func TestQueriesUseAnIndex(t *testing.T) {
	s, _ := newStore(t)
	type query struct {
		text string
		args []any
		uses string // part of the plan
	}
	queries := map[string]query{
		"tenants":     {tenantsQuery, []any{"", 9}, "SEARCH tenant USING PRIMARY KEY (id>?)"},
		"ring":        {ringQuery, []any{"t", "r"}, "SEARCH ring USING PRIMARY KEY (tenant=? AND keyring=?)"},
		"due":         {ringsDueQuery, []any{1, 9}, "SEARCH ring USING COVERING INDEX ring_due (due<?)"},
		"workload":    {workloadQuery, []any{"w"}, "SEARCH workload USING PRIMARY KEY (id=?)"},
		"workloads":   {workloadsQuery, []any{"w", 9}, "SEARCH workload USING PRIMARY KEY (id>?)"},
		"revocations": {revocationsQuery, []any{[]byte{}, 9}, "SEARCH revocation USING PRIMARY KEY (fingerprint>?)"},
	}
	for _, prefix := range []string{"", "m"} {
		for _, after := range []string{"", "a", "mm", "z"} {
			for purpose, index := range map[keys.Purpose]string{
				0:               "SEARCH ring USING PRIMARY KEY (tenant=? AND keyring>?",
				keys.PurposeMAC: "SEARCH ring USING INDEX ring_purpose (tenant=? AND purpose=? AND keyring>?",
			} {
				if prefix != "" {
					index += " AND keyring<?"
				}
				q := keys.RingQuery{Tenant: "t", After: after, Prefix: prefix, Purpose: purpose, Limit: 9}
				text, args := ringsQuery(q)
				queries[fmt.Sprintf("rings %+v", q)] = query{text, args, index + ")"}
			}
		}
	}
	for name, q := range queries {
		t.Run(name, func(t *testing.T) {
			plan := explain(t, s, q.text, q.args)
			if !strings.Contains(plan, q.uses) {
				t.Errorf("no %q in\n%s", q.uses, plan)
			}
			// "SCAN r" reads the page that was selected.
			if strings.Contains(strings.ReplaceAll(plan, "SCAN r\n", ""), "SCAN") {
				t.Errorf("a scan in\n%s", plan)
			}
			if strings.Contains(q.text, "JOIN version") && !strings.Contains(plan, "SEARCH v USING PRIMARY KEY (tenant=? AND keyring=?)") {
				t.Errorf("the versions are not searched for:\n%s", plan)
			}
		})
	}
}

func explain(t *testing.T, s *Store, query string, args []any) string {
	t.Helper()
	rows, err := s.read.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
	must(t, err)
	defer rows.Close()
	var plan strings.Builder
	for rows.Next() {
		var id, parent, unused int
		var detail string
		must(t, rows.Scan(&id, &parent, &unused, &detail))
		plan.WriteString(detail + "\n")
	}
	must(t, rows.Err())
	return plan.String()
}
