// Package openapi holds the generated description of the REST API.
package openapi

import _ "embed"

// JSON is the OpenAPI 2.0 document of both planes.
//
//go:embed sallyport.swagger.json
var JSON []byte
