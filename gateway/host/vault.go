package host

import (
	"fmt"

	"github.com/sallyport/sallyport/gateway/broker/vault"
	"github.com/sallyport/sallyport/gateway/config"
	"github.com/sallyport/sallyport/gateway/lease"
)

func (h *Host) openVaults(sources map[string]lease.Source) error {
	for _, v := range h.config.Sources.Vault {
		s, err := vault.New(vaultConfig(v, h))
		if err != nil {
			return fmt.Errorf("sources.vault %s: %w", v.Name, err)
		}
		h.closers = append(h.closers, func() error { s.Close(); return nil })
		sources[v.Name] = s
	}
	return nil
}

func vaultConfig(v config.Vault, h *Host) vault.Config {
	c := vault.Config{
		Name: v.Name, Address: v.Address, CAFile: v.CAFile, ServerName: v.ServerName, Namespace: v.Namespace,
		Timeout: v.Timeout, RequestLimit: v.RequestLimit, TokenRole: v.TokenRole, PolicyPrefix: v.PolicyPrefix, Logger: h.logger,
	}
	if a := v.AppRole; a != nil {
		c.AppRole = &vault.AppRole{Mount: a.Mount, RoleID: a.RoleID, SecretIDFile: a.SecretIDFile, Wrapped: a.Wrapped}
	}
	if a := v.Certificate; a != nil {
		c.Certificate = &vault.Certificate{Mount: a.Mount, Role: a.Role, CertFile: a.Certificate, KeyFile: a.Key}
	}
	if a := v.Kubernetes; a != nil {
		c.Kubernetes = &vault.Kubernetes{Mount: a.Mount, Role: a.Role, TokenFile: a.TokenFile}
	}
	if a := v.JWT; a != nil {
		c.JWT = &vault.JWT{Mount: a.Mount, Role: a.Role, TokenFile: a.TokenFile}
	}
	return c
}
