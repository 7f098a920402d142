package main

import (
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	tests := map[string]struct {
		in   string
		ok   bool
		want []string
	}{
		"pass": {
			in: `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"chatter\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p","Elapsed":9}`,
			ok:   true,
			want: []string{"ok  \tp\t0.1s\n", "slow:    9.0s p\n", "tests: 1 passed, 0 failed, 0 skipped\n"},
		},
		"fail": {
			in: `{"Action":"output","Package":"p","Test":"TestA","Output":"why\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`,
			want: []string{"why\n", "tests: 0 passed, 1 failed, 0 skipped\n"},
		},
		"does not build": {
			in: `{"ImportPath":"p","Action":"build-output","Output":"p.go:1: nonsense\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}
{"Action":"fail","Package":"p"}
{"Action":"pass","Package":"q","Test":"TestB"}`,
			want: []string{"p.go:1: nonsense\n", "FAIL\tp [build failed]\n", "broken: p\n", "1 passed, 1 failed"},
		},
		"panics outside a test": {
			in: `{"Action":"output","Package":"p","Output":"panic: early\n"}
{"Action":"fail","Package":"p"}`,
			want: []string{"panic: early\n", "broken: p\n"},
		},
		"skip": {
			in: `{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:1: no server\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"--- SKIP: TestB\n"}
{"Action":"skip","Package":"p","Test":"TestB"}`,
			ok:   true,
			want: []string{"skipped: p TestB: b_test.go:1: no server\n", "1 passed, 0 failed, 1 skipped\n"},
		},
		"nothing ran": {in: ``, want: []string{"tests: 0 passed, 0 failed, 0 skipped\n"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			sum := &tally{output: map[string][]string{}, failedIn: map[string]int{}}
			var out strings.Builder
			if err := sum.read(strings.NewReader(test.in), &out); err != nil {
				t.Fatal(err)
			}
			if ok := sum.close(&out); ok != test.ok {
				t.Errorf("ok = %t, want %t", ok, test.ok)
			}
			for _, w := range test.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("output lacks %q:\n%s", w, out.String())
				}
			}
			if strings.Contains(out.String(), "chatter") {
				t.Errorf("a passing test is quiet:\n%s", out.String())
			}
		})
	}
}
