package vault

import (
	"path"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/gateway/fault"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

func dynamicOf(path string, body map[string]string) *controlv1.SecretParameters {
	return &controlv1.SecretParameters{Kind: &controlv1.SecretParameters_VaultDynamic{VaultDynamic: &controlv1.VaultDynamic{Path: path, Body: body}}}
}

func databaseOf(mount, role string) *controlv1.SecretParameters {
	return &controlv1.SecretParameters{Kind: &controlv1.SecretParameters_VaultDatabase{VaultDatabase: &controlv1.VaultDatabase{Mount: mount, Role: role}}}
}

func pkiOf(commonName string, dns ...string) *controlv1.SecretParameters {
	return &controlv1.SecretParameters{Kind: &controlv1.SecretParameters_VaultPki{
		VaultPki: &controlv1.VaultPki{Mount: "pki", Role: "app", CommonName: commonName, DnsNames: dns},
	}}
}

func kvOf(mount, path string) *controlv1.SecretParameters {
	return &controlv1.SecretParameters{Kind: &controlv1.SecretParameters_VaultKv{VaultKv: &controlv1.VaultKv{Mount: mount, Path: path}}}
}

func awsOf(role, arn string) *controlv1.SecretParameters {
	return &controlv1.SecretParameters{Kind: &controlv1.SecretParameters_VaultAws{VaultAws: &controlv1.VaultAws{Mount: "aws", Role: role, RoleArn: arn}}}
}

func TestParametersThatAreAccepted(t *testing.T) {
	t.Parallel()
	s := &Source{}
	for _, p := range []*controlv1.SecretParameters{
		databaseOf("database", "app"), databaseOf("team-a/db_1.x", "App.Role-2"), kvOf("secret", "a/b/c.d"), kvOf("system", "authors"),
		pkiOf("app"), pkiOf("app.example.org", "a.example.org", "b"), pkiOf("Some Service: x/y"),
		awsOf("deploy", ""), awsOf("deploy", "arn:aws:iam::123456789012:role/path/to+it=x"), awsOf("deploy", "arn:aws-us-gov:iam::123456789012:role/r"),
		dynamicOf("rabbitmq/creds/app", nil), dynamicOf("x/y", map[string]string{"a": `"quoted" \ and $ {`}),
	} {
		if err := s.Check(p); err != nil {
			t.Errorf("%v: %v", p, err)
		}
	}
}

func TestParametersThatAreRefused(t *testing.T) {
	t.Parallel()
	s := &Source{}
	var bad []*controlv1.SecretParameters
	for _, p := range []string{
		"", "/", "a/", "/a", "a//b", ".", "..", "a/..", "a/./b", "../sys", "a/*", "a/+/b", "a/b*", "a b", "a%2fb", "a?b", "a#b", "ä", "a\n", "a\x00b",
		"sys", "SYS/mounts", "auth/token/create", "Identity/x", "cubbyhole/y", `a"b`, "{{identity}}", strings.Repeat("a", 129),
		strings.Repeat("a/", 40) + "a", strings.Repeat(strings.Repeat("a", 100)+"/", 6) + "a",
	} {
		bad = append(bad, databaseOf(p, "app"), dynamicOf(p, nil), dynamicOf(p+"/x", nil))
		if p != "sys" && !strings.HasPrefix(strings.ToLower(p), "sys/") && !strings.HasPrefix(p, "auth") && !strings.HasPrefix(p, "Id") && !strings.HasPrefix(p, "cub") {
			bad = append(bad, kvOf("secret", p), databaseOf("database", p))
		}
	}
	for _, cn := range []string{"", " a", "a ", "*", "*.example.org", "a,b", "a=b", "a\nb", "ä", "a\x00", strings.Repeat("a", 65), "${x}", `"`} {
		bad = append(bad, pkiOf(cn))
	}
	for _, name := range []string{"", ".", "a.", ".a", "a..b", "-a", "a-", "*.a", "a,b", "ä", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "aa"} {
		bad = append(bad, pkiOf("app", name))
	}
	bad = append(bad, pkiOf("app", strings.Split(strings.Repeat("a,", 16)+"a", ",")...), databaseOf("database", "a/b"))
	for _, arn := range []string{"x", "arn:aws:iam::1:role/x", "arn:aws:iam::123456789012:user/x", "arn:aws:iam::123456789012:role/", "arn:aws:iam::123456789012:role/*", "arn:aws:iam::123456789012:role/x\n"} {
		bad = append(bad, awsOf("deploy", arn))
	}
	for name, value := range map[string]string{"": "x", "a b": "x", "a\"": "x", "a": "x\ny", "b": "x${y", "c": strings.Repeat("x", 4097), "d": "\xff"} {
		bad = append(bad, dynamicOf("a/b", map[string]string{name: value}))
	}
	bad = append(bad, dynamicOf("rabbitmq", nil), nil, &controlv1.SecretParameters{})
	for _, p := range bad {
		if f := fault.From(s.Check(p)); s.Check(p) == nil || f.Reason != fault.InvalidArgument {
			t.Errorf("%v: %v", p, s.Check(p))
		}
	}
}

// What Check accepts is a path that nobody reads in another way.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{"database/creds/app", "a/../b", "sys/raw", "a//b", "a/%2e%2e/b", "secret/data/x.y"} {
		f.Add(s, "app", "a.example.org")
	}
	f.Fuzz(func(t *testing.T, where, role, name string) {
		s := &Source{config: Config{PolicyPrefix: "sallyport", TokenRole: "sallyport"}}
		for _, p := range []*controlv1.SecretParameters{
			dynamicOf(where, map[string]string{"name": name}), databaseOf(where, role), kvOf(where, role), kvOf("secret", where), pkiOf(name, name), awsOf(role, name),
		} {
			if s.Check(p) != nil {
				continue
			}
			plan, err := planOf(p)
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range []string{plan.path, plan.metadata} {
				first, _, _ := strings.Cut(strings.ToLower(at), "/")
				clean := strings.TrimPrefix(path.Clean("/"+at), "/")
				if at != clean || strings.ContainsAny(at, "*+{}\"\\%?# \n") || first == "sys" || first == "auth" || first == "identity" || first == "cubbyhole" {
					t.Errorf("%q is accepted", at)
				}
			}
		}
	})
}
