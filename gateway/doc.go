// Package gateway assembles a Sallyport gateway: one table of routes, one road.
//
// The map, from the wire inwards:
//
//	transport   listeners, TLS, limits; gRPC and REST over the same table
//	pipeline    the road: authenticate, narrow, authorize, act, record, answer
//	authn       a connection's certificate becomes a workload or a human
//	policy      request in, decision and reasons out
//	dataplane   encrypt, decrypt, rewrap, mac
//	control     tenants, keyrings, workloads, policy
//	audit       records, receipts, the journal and the transparency log
//	store       what is stored, and where
//	config      the configuration file
//	host        from a configuration file to a running gateway
//
// identity and fault are the words that all of them use. docs/life-of-a-request.md
// follows one request through the rooms.
package gateway
