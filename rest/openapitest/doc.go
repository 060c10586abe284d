// Package openapitest has witnesses of the OpenAPI documents of package rest that are not ours: a validator checks the
// document, and that a server's requests and answers are as it says; a client that another project's generator made of it
// talks to the server. They have dependencies that the library does not want, so they are a module of their own.
//
// After a change of the document write it, and the client, anew:
//
//	go test -update .
package openapitest
