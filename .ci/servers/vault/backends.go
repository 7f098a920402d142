package main

import (
	"maps"
	"slices"

	authjwt "github.com/hashicorp/vault-plugin-auth-jwt"
	authkubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	secretskv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/credential/cert"
	"github.com/hashicorp/vault/builtin/logical/aws"
	"github.com/hashicorp/vault/builtin/logical/database"
	"github.com/hashicorp/vault/builtin/logical/pki"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/plugins/database/postgresql"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// secrets and logins are the backends of this server, by type. The token backend,
// the cubbyhole and identity are part of the core.
var (
	secrets = map[string]logical.Factory{
		"aws":      aws.Factory,
		"database": database.Factory,
		"kv":       secretskv.Factory,
		"pki":      pki.Factory,
		"transit":  transit.Factory,
	}
	logins = map[string]logical.Factory{
		"approle":    approle.Factory,
		"cert":       cert.Factory,
		"jwt":        authjwt.Factory,
		"kubernetes": authkubernetes.Factory,
	}
	databases = map[string]func() (any, error){
		"postgresql-database-plugin": postgresql.New,
	}
)

// registry tells the plugin catalog what is built in. Vault's own registry would
// link every plugin there is.
type registry struct{}

// Contains implements plugincatalog.BuiltinRegistry.
func (r registry) Contains(name string, kind consts.PluginType) bool {
	_, ok := r.Get(name, kind)
	return ok
}

// Get returns a function that gives the factory of a backend, and for a database
// one that makes the plugin itself.
func (registry) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	from := map[string]logical.Factory(nil)
	switch kind {
	case consts.PluginTypeSecrets:
		from = secrets
	case consts.PluginTypeCredential:
		from = logins
	case consts.PluginTypeDatabase:
		f, ok := databases[name]
		return f, ok
	default:
	}
	factory, ok := from[name]
	return func() (any, error) { return factory, nil }, ok
}

// Keys implements plugincatalog.BuiltinRegistry.
func (registry) Keys(kind consts.PluginType) []string {
	switch kind {
	case consts.PluginTypeSecrets:
		return slices.Sorted(maps.Keys(secrets))
	case consts.PluginTypeCredential:
		return slices.Sorted(maps.Keys(logins))
	case consts.PluginTypeDatabase:
		return slices.Sorted(maps.Keys(databases))
	default:
		return nil
	}
}

// DeprecationStatus implements plugincatalog.BuiltinRegistry.
func (r registry) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	if r.Contains(name, kind) {
		return consts.Supported, true
	}
	return consts.Unknown, false
}

// IsBuiltinEntPlugin implements plugincatalog.BuiltinRegistry.
func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
