package host

import (
	"context"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/keys"
	"github.com/sallyport/sallyport/keys/kms/awskms"
	"github.com/sallyport/sallyport/keys/kms/local"
)

const (
	// loadTimeout bounds one reading or opening of a keyring, retries of the KMS
	// included.
	loadTimeout = 10 * time.Second
	// destroyAfter is how long a version is scheduled for destruction: AWS KMS's
	// minimum for a key.
	destroyAfter = 7 * 24 * time.Hour
)

// openKeys opens the KEKs and makes the Keeper.
func (h *Host) openKeys(context.Context) error {
	c := h.config
	byName := map[string]keys.KEK{}
	for _, l := range c.KEK.Local {
		key, err := local.Open(l.File, sealer(l))
		if err != nil {
			return fmt.Errorf("kek.local %s: %w", l.Name, err)
		}
		h.closers = append(h.closers, func() error { key.Close(); return nil })
		byName[l.Name] = key
	}
	for _, a := range c.KEK.AWSKMS {
		key, err := awskms.New(awsConfig(a))
		if err != nil {
			return fmt.Errorf("kek.awskms %s: %w", a.Name, err)
		}
		h.closers = append(h.closers, func() error { key.Close(); return nil })
		byName[a.Name] = key
	}
	k := keys.Config{
		Shelf: h.store, Current: byName[c.KEK.Current], Deployment: c.Deployment, Environment: c.Environment, Now: time.Now,
		Entries: c.Cache.Entries, RefreshAfter: c.Cache.RefreshAfter, MaxStaleness: c.Cache.MaxStaleness,
		LoadTimeout: loadTimeout, DestroyAfter: destroyAfter,
		Rate: c.Limits.KMSPerSecond, TenantRate: c.Limits.KMSPerTenantPerSecond,
	}
	for name, kek := range byName {
		if name != c.KEK.Current {
			k.Others = append(k.Others, kek)
		}
	}
	var err error
	if h.keys, err = keys.New(k); err != nil {
		return err
	}
	h.closers = append(h.closers, func() error { h.keys.Close(); return nil })
	return nil
}

func sealer(l config.LocalKEK) local.Sealer {
	if l.PassphraseFile != "" {
		return local.PassphraseFile(l.PassphraseFile)
	}
	return local.CredentialFile(l.CredentialFile)
}

func awsConfig(a config.AWSKMS) awskms.Config {
	c := awskms.Config{KeyARN: a.ARN, Endpoint: a.Endpoint}
	c.Credentials.File, c.Credentials.Profile = a.CredentialsFile, a.Profile
	c.Credentials.Instance = a.InstanceRole
	if w := a.WebIdentity; w != nil {
		c.Credentials.WebIdentity = &awskms.WebIdentity{
			RoleARN: w.RoleARN, SessionName: "sallyport", TokenFile: w.TokenFile, Endpoint: w.Endpoint,
		}
	}
	return c
}
