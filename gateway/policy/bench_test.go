package policy

import (
	"fmt"
	"strings"
	"testing"
)

// manyPolicies are n policies as a gateway with n keyrings would have: one for each
// workload and keyring, a tenth of them on a purpose.
func manyPolicies(n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "@id(\"mine\") permit (principal == Sallyport::Workload::%q, "+
		"action in [Sallyport::Action::\"plaintext\", Sallyport::Action::\"seal\"], resource == Sallyport::Keyring::%q)\n"+
		"when { context.encryption has purpose && context.encryption.purpose == \"billing\" };\n", payments, cards)
	for i := 1; i < n; i++ {
		condition := ""
		if i%10 == 0 {
			condition = ` when { context.encryption has purpose && context.encryption.purpose == "billing" }`
		}
		fmt.Fprintf(&b, "@id(\"p%d\") permit (principal == Sallyport::Workload::\"spiffe://example.org/w%d\", "+
			"action in Sallyport::Action::\"seal\", resource in Sallyport::Tenant::\"tenants/t%d\")%s;\n", i, i, i%100, condition)
	}
	return b.String()
}

// BenchmarkDecide measures a question that was asked before.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{5, 50, 500, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, r := mustCompile(b, manyPolicies(n)), decryptCards(b)
			b.ReportAllocs()
			for b.Loop() {
				if !s.Decide(r).Allow {
					b.Fatal("denied")
				}
			}
		})
	}
}

// BenchmarkEvaluate measures a new question.
func BenchmarkEvaluate(b *testing.B) {
	for _, n := range []int{5, 50, 500, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, r, memory := mustCompile(b, manyPolicies(n)), decryptCards(b), new(scratch)
			b.ReportAllocs()
			for b.Loop() {
				if !s.decide(r, memory).Allow {
					b.Fatal("denied")
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, n := range []int{50, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			text := manyPolicies(n)
			for b.Loop() {
				mustCompile(b, text)
			}
		})
	}
}
