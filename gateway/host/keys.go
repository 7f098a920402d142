package host

import (
	"context"
	"fmt"
	"maps"
	"slices"
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

// openKEKs opens the KEKs that the configuration names, by their names there. The
// function closes those that were opened, also after an error.
func openKEKs(c config.Config) (byName map[string]keys.KEK, closeAll func() error, err error) {
	byName = map[string]keys.KEK{}
	var closers []func()
	closeAll = func() error {
		for _, f := range closers {
			f()
		}
		return nil
	}
	for _, l := range c.KEK.Local {
		key, err := local.Open(l.File, sealer(l))
		if err != nil {
			return nil, closeAll, fmt.Errorf("kek.local %s: %w", l.Name, err)
		}
		closers = append(closers, key.Close)
		byName[l.Name] = key
	}
	for _, a := range c.KEK.AWSKMS {
		key, err := awskms.New(awsConfig(a))
		if err != nil {
			return nil, closeAll, fmt.Errorf("kek.awskms %s: %w", a.Name, err)
		}
		closers = append(closers, key.Close)
		byName[a.Name] = key
	}
	return byName, closeAll, nil
}

// openKeys opens the KEKs and makes the Keeper.
func (h *Host) openKeys(context.Context) error {
	c := h.config
	byName, closeAll, err := openKEKs(c)
	h.closers = append(h.closers, closeAll)
	if err != nil {
		return err
	}
	h.keks = slices.Collect(maps.Values(byName))
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
