// Package leasetest tries what implements the interfaces of package lease: Source is
// the conformance suite of sources.
package leasetest
