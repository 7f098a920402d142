package cases

import (
	"os"
	"regexp"
	"testing"

	"github.com/sallyport/sallyport/gateway/policy"
)

// The examples of docs/policy.md are a policy and cases that pass.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	example := func(language string) string {
		found := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindSubmatch(text)
		if found == nil {
			t.Fatalf("no example in %s", language)
		}
		return string(found[1])
	}
	snapshot, err := policy.Compile([]policy.File{{Name: "payments.cedar", Content: example("cedar")}})
	if err != nil {
		t.Fatal(err)
	}
	suite, err := Parse([]byte(example("yaml")))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range suite.Run(snapshot) {
		if !r.Pass {
			t.Errorf("%s: %s", r.Name, r.Message)
		}
	}
}
