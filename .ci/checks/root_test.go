package checks

import "sync"

const root = "../.."

// load reads the graph once for all tests.
var load = sync.OnceValues(func() (Graph, error) { return Load(root) })
