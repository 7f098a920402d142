package vaulttest

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Where the engines are mounted, and what there is in them.
const (
	DatabaseMount      = "database"
	DatabaseConnection = "app"
	KVMount            = "secret"
	PKIMount           = "pki"
	AWSMount           = "aws"
	AWSRole            = "deploy"
	AWSRoleARN         = "arn:aws:iam::123456789012:role/deploy"
)

// mount mounts an engine, or leaves it if it is there.
func (v *Vault) mount(path string, body map[string]any) error {
	_, err := v.Do(http.MethodPost, path, body)
	var failure *StatusError
	if errors.As(err, &failure) && slices.ContainsFunc(failure.Errors, func(s string) bool {
		return strings.Contains(s, "path is already in use")
	}) {
		return nil
	}
	return err
}

// write makes calls until one fails.
func (v *Vault) write(calls ...Request) error {
	for _, c := range calls {
		if _, err := v.Do(http.MethodPost, c.Path, c.Body); err != nil {
			return err
		}
	}
	return nil
}

// seconds is how Vault takes a duration without losing some of it.
func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// EnableDatabase lets database/creds/<role> issue roles of a PostgreSQL. Their names
// begin with "v-". It may be called again for another role.
func EnableDatabase(v *Vault, pg *Postgres, role string, ttl, maxTTL time.Duration) error {
	if err := v.mount("sys/mounts/"+DatabaseMount, map[string]any{"type": "database"}); err != nil {
		return err
	}
	return v.write(
		Request{Path: DatabaseMount + "/config/" + DatabaseConnection, Body: map[string]any{
			"plugin_name":       "postgresql-database-plugin",
			"connection_url":    pg.DSN,
			"allowed_roles":     "*",
			"username":          pg.User,
			"password":          pg.Password,
			"verify_connection": true,
		}},
		Request{Path: DatabaseMount + "/roles/" + role, Body: map[string]any{
			"db_name":     DatabaseConnection,
			"default_ttl": seconds(ttl),
			"max_ttl":     seconds(maxTTL),
			"creation_statements": []string{
				`CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`,
			},
			"revocation_statements": []string{
				`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}'`,
				`DROP ROLE IF EXISTS "{{name}}"`,
			},
		}},
	)
}

// EnableKV mounts version 2 of KV and returns when it can be written.
func EnableKV(v *Vault) error {
	err := v.mount("sys/mounts/"+KVMount, map[string]any{"type": "kv", "options": map[string]any{"version": "2"}})
	if err != nil {
		return err
	}
	// The engine upgrades itself from version 1 after it was mounted, and refuses
	// everything meanwhile.
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	for {
		err := v.write(Request{Path: KVMount + "/config", Body: map[string]any{"max_versions": 10}})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pollInterval):
		}
	}
}

// EnablePKI makes an authority whose pki/issue/<role> issues certificates, for any
// name, that have leases.
func EnablePKI(v *Vault, role string, ttl, maxTTL time.Duration) error {
	err := v.mount("sys/mounts/"+PKIMount, map[string]any{
		"type": "pki", "config": map[string]any{"max_lease_ttl": "87600h"},
	})
	if err != nil {
		return err
	}
	return v.write(
		Request{Path: PKIMount + "/root" + "/generate/internal", Body: map[string]any{
			"common_name": "vaulttest pki", "ttl": "87600h", "key_type": "ec", "key_bits": 256,
		}},
		Request{Path: PKIMount + "/roles/" + role, Body: map[string]any{
			"allow_any_name":    true,
			"enforce_hostnames": false,
			"generate_lease":    true,
			"key_type":          "ec",
			"key_bits":          256,
			"ttl":               seconds(ttl),
			"max_ttl":           seconds(maxTTL),
		}},
	)
}

// EnableAWS lets aws/sts/deploy issue credentials of AWSRoleARN, and aws/creds/user
// those of new users, from a moto at a URL (StartMoto).
func EnableAWS(v *Vault, motoURL string) error {
	if err := v.mount("sys/mounts/"+AWSMount, map[string]any{"type": "aws"}); err != nil {
		return err
	}
	return v.write(
		Request{Path: AWSMount + "/config/root", Body: map[string]any{
			"access_key": "AKIDEXAMPLE", "secret_key": "secret", "region": "eu-central-1",
			"iam_endpoint": motoURL, "sts_endpoint": motoURL, "sts_region": "eu-central-1",
		}},
		Request{Path: AWSMount + "/roles/" + AWSRole, Body: map[string]any{
			"credential_type": "assumed_role", "role_arns": []string{AWSRoleARN}, "default_sts_ttl": "900s",
		}},
		Request{Path: AWSMount + "/roles/user", Body: map[string]any{
			"credential_type": "iam_user",
			"policy_document": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:ListAllMyBuckets","Resource":"*"}]}`,
		}},
	)
}

// WritePolicy makes a policy of HCL text.
func WritePolicy(v *Vault, name, text string) error {
	return v.write(Request{Path: "sys/policies/acl/" + name, Body: map[string]any{"policy": text}})
}
