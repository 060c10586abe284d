// Package shop is a client that oapi-codegen made of the document in this folder.
package shop
