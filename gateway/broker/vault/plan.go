package vault

import (
	"strings"
	"time"

	"github.com/sallyport/sallyport/crypto/secret"
	"github.com/sallyport/sallyport/gateway/fault"
	"github.com/sallyport/sallyport/gateway/lease"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

const (
	// maxFields is how many parts a credential may have.
	maxFields = 256
	// minAWS is the shortest life that AWS gives temporary credentials.
	minAWS = 15 * time.Minute
)

// plan is how a role's credential is asked for.
type plan struct {
	path string
	// write says that the credential is asked for with PUT, and body with what. ttl
	// says that the lifetime goes into the body.
	write bool
	body  map[string]string
	ttl   bool
	// leased says that the answer must have a lease, on which revoking works.
	leased bool
	// renewable says that the lease may be renewable; the answer says whether it is.
	renewable, revocable bool
	// bound says that nothing ends the credential before the end that the answer
	// states, so that it must be no later than what was asked for.
	bound bool
	// least is the shortest lifetime there is.
	least time.Duration
	// metadata is where the version is, for what has versions.
	metadata string
	// take takes the value out of the answer's data.
	take func(data object) (lease.Value, error)
}

// uses is how often the child token can be used. On the last use Vault revokes what
// the token was given at once, so it must not be the first one.
func (p plan) uses() int {
	if p.leased {
		return 2
	}
	return 1
}

// planOf gives the plan for checked parameters; the error is INVALID_ARGUMENT.
func planOf(p *controlv1.SecretParameters) (plan, error) {
	if err := checkParameters(p); err != nil {
		return plan{}, err
	}
	switch k := p.GetKind().(type) {
	case *controlv1.SecretParameters_VaultDatabase:
		return plan{
			path: k.VaultDatabase.GetMount() + "/creds/" + k.VaultDatabase.GetRole(), leased: true, renewable: true, revocable: true,
			take: exactly("username", "password"),
		}, nil
	case *controlv1.SecretParameters_VaultPki:
		body := map[string]string{"common_name": k.VaultPki.GetCommonName(), "format": "pem"}
		if names := k.VaultPki.GetDnsNames(); len(names) > 0 {
			body["alt_names"] = strings.Join(names, ",")
		}
		return plan{
			path: k.VaultPki.GetMount() + "/issue/" + k.VaultPki.GetRole(), write: true, body: body, ttl: true,
			leased: true, revocable: true, take: takeCertificate,
		}, nil
	case *controlv1.SecretParameters_VaultKv:
		return plan{
			path:     k.VaultKv.GetMount() + "/data/" + k.VaultKv.GetPath(),
			metadata: k.VaultKv.GetMount() + "/metadata/" + k.VaultKv.GetPath(), take: everything,
		}, nil
	case *controlv1.SecretParameters_VaultAws:
		body := map[string]string{}
		if arn := k.VaultAws.GetRoleArn(); arn != "" {
			body["role_arn"] = arn
		}
		return plan{
			path: k.VaultAws.GetMount() + "/sts/" + k.VaultAws.GetRole(), write: true, body: body, ttl: true,
			leased: true, bound: true, least: minAWS, take: exactly("access_key", "secret_key", "security_token"),
		}, nil
	case *controlv1.SecretParameters_VaultDynamic:
		body := k.VaultDynamic.GetBody()
		return plan{
			path: k.VaultDynamic.GetPath(), write: len(body) > 0, body: body,
			leased: true, renewable: true, revocable: true, take: everything,
		}, nil
	}
	return plan{}, fault.New(fault.InvalidArgument, "parameters must be of one of Vault's kinds")
}

// exactly takes the named fields, which must be texts that are not empty.
func exactly(names ...string) func(object) (lease.Value, error) {
	return func(data object) (lease.Value, error) {
		var v lease.Value
		for _, name := range names {
			text, err := data[name].text()
			if err == nil && string(data[name]) == `""` {
				err = errJSON
			}
			if err != nil {
				text.Wipe()
				v.Wipe()
				return nil, malformed("Vault's answer has no " + name)
			}
			v = append(v, lease.Field{Name: name, Value: text})
		}
		return v, nil
	}
}

// everything takes all fields, in the order of their names. What is no text is JSON.
func everything(data object) (lease.Value, error) {
	if len(data) == 0 || len(data) > maxFields {
		return nil, malformed("Vault's answer has no fields, or too many")
	}
	var v lease.Value
	for _, name := range data.names() {
		text, err := data[name].secretText()
		if err != nil {
			v.Wipe()
			return nil, malformed("Vault's answer has a field that cannot be read")
		}
		v = append(v, lease.Field{Name: name, Value: text})
	}
	return v, nil
}

// takeCertificate takes what the PKI engine issues. The chain is one text of PEM; of
// an authority that signs by itself it is its certificate.
func takeCertificate(data object) (lease.Value, error) {
	v, err := exactly("certificate", "private_key", "issuing_ca", "serial_number")(data)
	if err != nil {
		return nil, err
	}
	links, err := data["ca_chain"].elements()
	if err != nil {
		v.Wipe()
		return nil, malformed("Vault's answer has no ca_chain")
	}
	if len(links) == 0 {
		links = []element{data["issuing_ca"]}
	}
	var chain []byte // public, so it may grow
	for _, link := range links {
		text, err := link.name()
		if err != nil || text == "" {
			v.Wipe()
			return nil, malformed("Vault's answer has no ca_chain")
		}
		chain = append(append(chain, strings.TrimRight(text, "\n")...), '\n')
	}
	return append(v, lease.Field{Name: "ca_chain", Value: secret.Take(chain)}), nil
}
