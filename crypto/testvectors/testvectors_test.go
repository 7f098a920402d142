package testvectors_test

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/crypto/testvectors"
)

// The packages envelope, binding and delivery run the vectors; this test looks at the
// files.
func TestFilesAreStrict(t *testing.T) {
	envelopes, err := testvectors.Envelopes()
	if err != nil {
		t.Fatal(err)
	}
	texts, err := testvectors.TextForms()
	if err != nil {
		t.Fatal(err)
	}
	contexts, err := testvectors.Contexts()
	if err != nil {
		t.Fatal(err)
	}
	deliveries, err := testvectors.Deliveries()
	if err != nil {
		t.Fatal(err)
	}
	results := make(map[testvectors.Result]int)
	for _, v := range envelopes {
		results[v.Result]++
	}
	for _, v := range texts {
		results[v.Result]++
	}
	for _, v := range contexts {
		results[v.Result]++
	}
	for _, v := range deliveries {
		results[v.Result]++
	}
	for _, r := range []testvectors.Result{
		testvectors.OK, testvectors.Open, testvectors.Malformed, testvectors.UnknownVersion, testvectors.UnknownSuite,
		testvectors.UnknownFlag, testvectors.Text, testvectors.TooManyPairs, testvectors.Name, testvectors.Value,
		testvectors.NotUTF8, testvectors.TooLarge, testvectors.Duplicate, testvectors.NotCanonical,
		testvectors.BadKey,
	} {
		if results[r] == 0 {
			t.Errorf("no vector results in %q", r)
		}
		delete(results, r)
	}
	for r := range results {
		t.Errorf("unknown result %q", r)
	}
}

func TestDecodeRefuses(t *testing.T) {
	const good = `{"description":"","vectors":[{"name":"n","text":"t","result":"text"}]}`
	if _, err := testvectors.Decode[testvectors.TextForm]([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string]string{
		"unknown key in a vector": strings.Replace(good, `"name"`, `"surprise":1,"name"`, 1),
		"unknown key in the file": strings.Replace(good, `"description"`, `"surprise":1,"description"`, 1),
		"no vectors":              `{"description":"","vectors":[]}`,
		"trailing data":           good + "{}",
		"upper-case hexadecimal":  strings.Replace(good, `"text":"t"`, `"text":"t","bytes":"AB"`, 1),
	} {
		if _, err := testvectors.Decode[testvectors.TextForm]([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}
