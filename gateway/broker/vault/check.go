package vault

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/sallyport/sallyport/gateway/fault"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

const (
	maxPath     = 512
	maxSegments = 32
	maxNames    = 16
	maxBody     = 32
	maxBodyText = 4096
)

var (
	segment = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)
	// commonName is what fits into a certificate's subject (RFC 5280, ub-common-name)
	// without being read as anything else: no wildcard, no comma.
	commonName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9 ._@:/-]{0,62}[A-Za-z0-9])?$`)
	dnsLabel   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	roleARN    = regexp.MustCompile(`^arn:aws[a-z-]{0,32}:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]{1,512}$`)
	bodyName   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
)

// reserved are the mounts of Vault itself: what they hold is power and no secret that
// is meant for a service.
var reserved = []string{"sys", "auth", "identity", "cubbyhole"}

// Check implements lease.Source. What it accepts is a path that means the same to us,
// to Vault and to Vault's policies, where * and + are not letters.
func (s *Source) Check(p *controlv1.SecretParameters) error {
	_, err := planOf(p)
	return err
}

func checkParameters(p *controlv1.SecretParameters) error {
	switch k := p.GetKind().(type) {
	case *controlv1.SecretParameters_VaultDatabase:
		return firstOf(
			mount(k.VaultDatabase.GetMount()),
			must(cleanName(k.VaultDatabase.GetRole()), "role must be a name of Vault"),
		)
	case *controlv1.SecretParameters_VaultPki:
		return firstOf(
			mount(k.VaultPki.GetMount()),
			must(cleanName(k.VaultPki.GetRole()), "role must be a name of Vault"),
			must(commonName.MatchString(k.VaultPki.GetCommonName()),
				"common_name must have 1 to 64 letters, digits and . _ @ : / - and spaces between them"),
			dnsNames(k.VaultPki.GetDnsNames()),
		)
	case *controlv1.SecretParameters_VaultKv:
		return firstOf(
			mount(k.VaultKv.GetMount()),
			must(cleanPath(k.VaultKv.GetPath()), "path must be segments of letters, digits and _ . - with / between them"),
		)
	case *controlv1.SecretParameters_VaultAws:
		arn := k.VaultAws.GetRoleArn()
		return firstOf(
			mount(k.VaultAws.GetMount()),
			must(cleanName(k.VaultAws.GetRole()), "role must be a name of Vault"),
			must(arn == "" || roleARN.MatchString(arn), "role_arn must be the ARN of an IAM role"),
		)
	case *controlv1.SecretParameters_VaultDynamic:
		path := k.VaultDynamic.GetPath()
		return firstOf(
			mount(path),
			must(strings.Contains(path, "/"), "path must have a mount and something below it"),
			dynamicBody(k.VaultDynamic.GetBody()),
		)
	}
	return fault.New(fault.InvalidArgument, "parameters must be of one of Vault's kinds")
}

// cleanName reports whether s is one segment of a path.
func cleanName(s string) bool { return segment.MatchString(s) && s != "." && s != ".." }

// cleanPath reports whether s is segments with a slash between them.
func cleanPath(s string) bool {
	segments := strings.Split(s, "/")
	if len(s) > maxPath || len(segments) > maxSegments {
		return false
	}
	for _, name := range segments {
		if !cleanName(name) {
			return false
		}
	}
	return true
}

// mount checks where an engine is mounted, or a whole path.
func mount(path string) error {
	first, _, _ := strings.Cut(path, "/")
	for _, r := range reserved {
		if strings.EqualFold(first, r) {
			return fault.New(fault.InvalidArgument, "mount or path must not begin with sys, auth, identity or cubbyhole")
		}
	}
	return must(cleanPath(path), "mount or path must be segments of letters, digits and _ . - with / between them")
}

func dnsNames(names []string) error {
	ok := len(names) <= maxNames
	for _, name := range names {
		ok = ok && len(name) <= 253
		for label := range strings.SplitSeq(name, ".") {
			ok = ok && dnsLabel.MatchString(label)
		}
	}
	return must(ok, "dns_names must be at most 16 names without wildcards")
}

func dynamicBody(body map[string]string) error {
	ok := len(body) <= maxBody
	for name, value := range body {
		ok = ok && bodyName.MatchString(name) && len(value) <= maxBodyText && utf8.ValidString(value) &&
			// In the language of policies ${ begins something.
			!strings.Contains(value, "${") && !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f })
	}
	return must(ok, "body must be at most 32 names of letters, digits, _ and - with values of one line")
}

func must(ok bool, detail string) error {
	if ok {
		return nil
	}
	return fault.New(fault.InvalidArgument, detail)
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
