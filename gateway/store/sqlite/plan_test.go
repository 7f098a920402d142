package sqlite

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/gateway/lease"
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
		"role":        {roleQuery, []any{"t", "r"}, "SEARCH role USING PRIMARY KEY (tenant=? AND role=?)"},
		"roles":       {rolesQuery, []any{"t", "r", 9}, "SEARCH role USING PRIMARY KEY (tenant=? AND role>?)"},
		"roles of":    {rolesOfQuery, []any{"vault"}, "SEARCH role USING INDEX role_source (source=?)"},
		"lease":       {leaseQuery, []any{[]byte{}, "t", "r"}, "SEARCH lease USING PRIMARY KEY (id=?)"},
		"leases due":  {leasesDueQuery, []any{1, 9}, "SEARCH lease USING INDEX lease_due (due<?)"},
		"held":        {heldQuery, []any{"w", "t", "r", 9}, "SEARCH lease USING COVERING INDEX lease_held (workload=? AND tenant=? AND role=?)"},
		"last lease":  {latestQuery, nil, "SEARCH lease USING COVERING INDEX lease_created"},
	}
	for _, q := range leaseQueries() {
		text, args := leasesQuery(q)
		queries[fmt.Sprintf("leases %+v", q)] = query{text, args, leasesPlan(q)}
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
			if strings.Contains(plan, "TEMP B-TREE") && !strings.Contains(plan, "SCAN r") {
				t.Errorf("sorted after reading all:\n%s", plan)
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

// leaseQueries gives every combination of what a query of leases may ask for.
func leaseQueries() []lease.Query {
	all := []lease.Query{{Limit: 9}}
	for _, condition := range []func(*lease.Query){
		func(q *lease.Query) { q.ID = lease.ID{1} },
		func(q *lease.Query) { q.Evidence = [32]byte{1} },
		func(q *lease.Query) { q.Workload = "w" },
		func(q *lease.Query) { q.Tenant = "t" },
		func(q *lease.Query) { q.Tenant, q.Role = "t", "r" },
		func(q *lease.Query) { q.State = lease.StateStuck },
		func(q *lease.Query) { q.State = lease.StateActive },
		func(q *lease.Query) { q.Live = true },
		func(q *lease.Query) { q.Since = at(1) },
		func(q *lease.Query) { q.After = lease.Cursor{Created: at(2), ID: lease.ID{1}} },
	} {
		for _, q := range all {
			condition(&q)
			all = append(all, q)
		}
	}
	return all
}

// leasesPlan is what the plan of a query must say: that it goes by what narrows most,
// and on from where the last page ended.
func leasesPlan(q lease.Query) string {
	from := "(created,id)>(?,?)"
	if q.After.Created.Before(q.Since) {
		from = "created>?"
	}
	by := func(index, columns string) string {
		return "SEARCH lease USING INDEX " + index + " (" + columns + from + ")"
	}
	switch {
	case q.ID != lease.ID{}:
		return "SEARCH lease USING PRIMARY KEY (id=?"
	case q.Evidence != [32]byte{}:
		return by("lease_evidence", "evidence=? AND ")
	case q.Workload != "" && q.Role != "" && q.Live:
		return by("lease_held", "workload=? AND tenant=? AND role=? AND ")
	case q.Workload != "":
		return by("lease_workload", "workload=? AND ")
	case q.State == lease.StateStuck:
		return by("lease_state", "state=? AND ")
	case q.Tenant != "":
		return by("lease_tenant", "tenant=? AND ")
	case q.State != 0:
		return by("lease_state", "state=? AND ")
	}
	return by("lease_created", "")
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
