// Package policy decides: request in, decision and reasons out.
//
// Policies are Cedar text (https://docs.cedarpolicy.com), compiled once into an
// immutable Snapshot and validated against the schema in schema.cedarschema. A
// decision has four parts, and all of them must agree before it allows:
//
//  1. the shape of the request: a known action, and a resource of its kind;
//  2. the guards, compiled in from guard_data.cedar or guard_control.cedar and
//     evaluated on their own, which no loaded policy can touch;
//  3. the loaded policies, of which at least one must permit, none forbid, and none
//     fail to evaluate;
//  4. the facts of the guards once more, in Go.
//
// Everything else is a denial, and so is the zero value of every type here. Cedar
// skips a policy whose condition fails to evaluate, also a forbid; therefore the
// guards forbid unless a fact is proved, and any evaluation error denies.
//
// The package reads no clock, file or store: time is a field of the request. The
// same snapshot and request give the same decision.
//
// The cost of a decision does not grow with the number of policies but with the
// number that could apply: policies are sliced by the principal and the resource of
// their scope (slice.go). A question that was asked before is answered from memory
// (decided.go): the memory belongs to the snapshot and ends with it, and its key covers
// everything that the decision can depend on.
package policy
