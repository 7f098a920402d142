// Package vaulttest runs a real Vault and a real PostgreSQL for tests, and sets them
// up: the database engine that issues roles of that PostgreSQL, KV, PKI, AWS against
// moto, and the ways to log in.
//
// Start... is for tests: the server ends with the test, and whatever goes wrong fails
// it. Launch... is for TestMain and harnesses: it returns errors, and the caller
// stops the server. Either way the servers die with the process that started them.
//
// There is no Vault client here: Vault.Do speaks its HTTP and JSON, so that the client
// under test is not tested against itself.
package vaulttest
