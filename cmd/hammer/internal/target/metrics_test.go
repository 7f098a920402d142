package target

import (
	"strings"
	"testing"
)

func TestParseMetrics(t *testing.T) {
	m, err := parseMetrics(strings.NewReader(`# HELP a_total Something.
# TYPE a_total counter
a_total{method="x",reason="OK"} 3
a_total{method="y } 9",reason="OK"} 4 1700000000000
b 1.5e+03

c_bucket{le="+Inf"} 7
`))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float64{"a_total": 7, "b": 1500, "c_bucket": 7} {
		if m[name] != want {
			t.Errorf("%s is %v, want %v", name, m[name], want)
		}
	}
	if grown, ok := m.Since(Metrics{"b": 500}, "b"); grown != 1000 || !ok {
		t.Errorf("b has grown by %v, %v", grown, ok)
	}
	if _, ok := m.Since(nil, "nothing"); ok {
		t.Error("a sample that is not there is there")
	}
	for _, bad := range []string{"name", "name{}", "name x"} {
		if _, err := parseMetrics(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
