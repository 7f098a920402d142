package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/encoding/protojson"

	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// maxRoleFile bounds the file of a role: far more than a request may hold.
const maxRoleFile = 1 << 20

// parameterFlags are a role's parameters as flags: one for each kind, and those that
// some kinds have beside it.
type parameterFlags struct {
	localCertificate                bool
	database, pki, kv, aws, dynamic string
	commonName, roleARN             string
	dnsNames, body                  []string
}

// kinds of parameters, by the name of their flag, and what to make of its value.
var parameterKinds = []struct {
	flag, usage string
	value       func(*parameterFlags) *string // nil for a flag without a value
	make        func(value string) (*controlv1.SecretParameters, error)
}{
	{
		"local-certificate", "kind: a client certificate of the gateway's own authority", nil,
		func(string) (*controlv1.SecretParameters, error) {
			return &controlv1.SecretParameters{
				Kind: &controlv1.SecretParameters_LocalCertificate{LocalCertificate: &controlv1.LocalCertificate{}},
			}, nil
		},
	},
	{
		"vault-database", "kind: a dynamic database credential of Vault, `MOUNT/ROLE`", func(p *parameterFlags) *string { return &p.database },
		func(v string) (*controlv1.SecretParameters, error) {
			mount, role, err := cutLast("vault-database", v)
			return &controlv1.SecretParameters{
				Kind: &controlv1.SecretParameters_VaultDatabase{VaultDatabase: &controlv1.VaultDatabase{Mount: mount, Role: role}},
			}, err
		},
	},
	{
		"vault-pki", "kind: a certificate of Vault, `MOUNT/ROLE`, with --common-name", func(p *parameterFlags) *string { return &p.pki },
		func(v string) (*controlv1.SecretParameters, error) {
			mount, role, err := cutLast("vault-pki", v)
			return &controlv1.SecretParameters{
				Kind: &controlv1.SecretParameters_VaultPki{VaultPki: &controlv1.VaultPki{Mount: mount, Role: role}},
			}, err
		},
	},
	{
		"vault-kv", "kind: a secret of a Vault KV engine of version 2, `MOUNT/PATH`; the mount ends at the first slash", func(p *parameterFlags) *string { return &p.kv },
		func(v string) (*controlv1.SecretParameters, error) {
			mount, path, ok := strings.Cut(v, "/")
			if !ok || mount == "" || path == "" {
				return nil, usagef("--vault-kv wants MOUNT/PATH")
			}
			return &controlv1.SecretParameters{
				Kind: &controlv1.SecretParameters_VaultKv{VaultKv: &controlv1.VaultKv{Mount: mount, Path: path}},
			}, nil
		},
	},
	{
		"vault-aws", "kind: temporary AWS credentials of Vault, `MOUNT/ROLE`, with --role-arn if it has several", func(p *parameterFlags) *string { return &p.aws },
		func(v string) (*controlv1.SecretParameters, error) {
			mount, role, err := cutLast("vault-aws", v)
			return &controlv1.SecretParameters{
				Kind: &controlv1.SecretParameters_VaultAws{VaultAws: &controlv1.VaultAws{Mount: mount, Role: role}},
			}, err
		},
	},
	{
		"vault-dynamic", "kind: any `PATH` of Vault that answers with a lease, with --body to POST", func(p *parameterFlags) *string { return &p.dynamic },
		func(v string) (*controlv1.SecretParameters, error) {
			return &controlv1.SecretParameters{
				Kind: &controlv1.SecretParameters_VaultDynamic{VaultDynamic: &controlv1.VaultDynamic{Path: v}},
			}, nil
		},
	},
}

// cutLast cuts a value at its last slash: mounts may have some, the names of roles not.
func cutLast(flag, v string) (mount, role string, err error) {
	i := strings.LastIndexByte(v, '/')
	if i <= 0 || i == len(v)-1 {
		return "", "", usagef("--%s wants MOUNT/ROLE", flag)
	}
	return v[:i], v[i+1:], nil
}

func (p *parameterFlags) register(f *pflag.FlagSet) {
	for _, k := range parameterKinds {
		if k.value == nil {
			f.BoolVar(&p.localCertificate, k.flag, false, k.usage)
		} else {
			f.StringVar(k.value(p), k.flag, "", k.usage)
		}
	}
	f.StringVar(&p.commonName, "common-name", "", "the subject's common name, of a certificate")
	f.StringArrayVar(&p.dnsNames, "dns-name", nil, "subject alternative name, of a certificate; may be repeated")
	f.StringVar(&p.roleARN, "role-arn", "", "which ARN to assume, with --vault-aws")
	f.StringArrayVar(&p.body, "body", nil, "name=value of the request's body, with --vault-dynamic; may be repeated")
}

// kindFlags lists the flags of the kinds, for messages.
func kindFlags() string {
	var names []string
	for _, k := range parameterKinds {
		names = append(names, "--"+k.flag)
	}
	return strings.Join(names, ", ")
}

// parameterNames lists the names of all flags here.
func parameterNames() []string {
	names := []string{"common-name", "dns-name", "role-arn", "body"}
	for _, k := range parameterKinds {
		names = append(names, k.flag)
	}
	return names
}

// apply gives the parameters that the flags describe: new ones if a flag names a kind,
// otherwise the old ones with what the other flags change.
func (p *parameterFlags) apply(changed func(string) bool, old *controlv1.SecretParameters) (*controlv1.SecretParameters, error) {
	result, named := old, ""
	for _, k := range parameterKinds {
		if !changed(k.flag) {
			continue
		}
		if named != "" {
			return nil, usagef("--%s and --%s exclude each other", named, k.flag)
		}
		named = k.flag
		value := ""
		if k.value != nil {
			value = *k.value(p)
		} else if !p.localCertificate {
			return nil, usagef("--%s=false says nothing; name another kind", k.flag)
		}
		var err error
		if result, err = k.make(value); err != nil {
			return nil, err
		}
	}
	return result, p.amend(changed, result)
}

// amend sets what only some kinds have.
func (p *parameterFlags) amend(changed func(string) bool, to *controlv1.SecretParameters) error {
	var allowed []string
	switch k := to.GetKind().(type) {
	case *controlv1.SecretParameters_LocalCertificate:
		allowed = []string{"common-name", "dns-name"}
		if changed("common-name") {
			k.LocalCertificate.CommonName = p.commonName
		}
		if changed("dns-name") {
			k.LocalCertificate.DnsNames = p.dnsNames
		}
	case *controlv1.SecretParameters_VaultPki:
		allowed = []string{"common-name", "dns-name"}
		if changed("common-name") {
			k.VaultPki.CommonName = p.commonName
		}
		if changed("dns-name") {
			k.VaultPki.DnsNames = p.dnsNames
		}
	case *controlv1.SecretParameters_VaultAws:
		allowed = []string{"role-arn"}
		if changed("role-arn") {
			k.VaultAws.RoleArn = p.roleARN
		}
	case *controlv1.SecretParameters_VaultDynamic:
		allowed = []string{"body"}
		if changed("body") {
			body, err := pairsOf("body", p.body)
			if err != nil {
				return err
			}
			k.VaultDynamic.Body = body
		}
	default:
	}
	for _, name := range []string{"common-name", "dns-name", "role-arn", "body"} {
		if changed(name) && !slices.Contains(allowed, name) {
			return usagef("--%s does not belong to this kind of role", name)
		}
	}
	return nil
}

// describe gives the kind of parameters, as its flag has it, and what they name.
func describe(p *controlv1.SecretParameters) (kind, what string) {
	certificate := func(issuer, commonName string, names []string) string {
		parts := []string{}
		for _, part := range []string{issuer, prefixed("CN=", commonName), strings.Join(names, " ")} {
			if part != "" {
				parts = append(parts, part)
			}
		}
		return strings.Join(parts, " ")
	}
	switch k := p.GetKind().(type) {
	case *controlv1.SecretParameters_LocalCertificate:
		c := k.LocalCertificate
		return "local-certificate", first(certificate("", c.GetCommonName(), c.GetDnsNames()), "-")
	case *controlv1.SecretParameters_VaultDatabase:
		return "vault-database", k.VaultDatabase.GetMount() + "/" + k.VaultDatabase.GetRole()
	case *controlv1.SecretParameters_VaultPki:
		c := k.VaultPki
		return "vault-pki", certificate(c.GetMount()+"/"+c.GetRole(), c.GetCommonName(), c.GetDnsNames())
	case *controlv1.SecretParameters_VaultKv:
		return "vault-kv", k.VaultKv.GetMount() + "/" + k.VaultKv.GetPath()
	case *controlv1.SecretParameters_VaultAws:
		return "vault-aws", strings.TrimSpace(k.VaultAws.GetMount() + "/" + k.VaultAws.GetRole() + " " + k.VaultAws.GetRoleArn())
	case *controlv1.SecretParameters_VaultDynamic:
		names := slices.Sorted(maps.Keys(k.VaultDynamic.GetBody()))
		return "vault-dynamic", strings.TrimSpace(k.VaultDynamic.GetPath() + " " + prefixed("with ", strings.Join(names, ", ")))
	default:
		return "unknown", "-" // of a newer gateway
	}
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// readRole reads a role from JSON, or from YAML, which includes it. Unknown and
// repeated names are refused.
func (a *app) readRole(file string, role *controlv1.SecretRole) error {
	text, err := (&files{app: a, in: file}).read(maxRoleFile)
	if err != nil {
		return err
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	var tree, more any
	if err := d.Decode(&tree); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s holds more than one document", file)
	}
	if _, ok := tree.(map[string]any); !ok {
		return fmt.Errorf("%s holds no role", file)
	}
	form, err := json.Marshal(tree)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := protojson.Unmarshal(form, role); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
