// Package lease is the promise to revoke. A credential that a source issues for a
// workload is a lease: it has an owner, a stated end, and a row in the ledger that
// was durable before the credential existed. Whatever crashes, the row leads to the
// credential's end.
//
// The package holds the state machine (State), the interfaces of what it stands on
// (Ledger, Roles, Source), the Book that moves leases through their states, and the
// sweeper that ends what should have ended. It stores no value: there is nowhere to
// put one.
//
// docs/decisions/0050-leases-hang-on-child-tokens.md and its neighbours say why it is
// built like this.
package lease
