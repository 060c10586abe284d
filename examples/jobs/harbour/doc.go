// Package harbour is the business of the example: what a harbour office does with pictures, manifests and notes. It knows
// nothing of jobs, messages or transports.
package harbour
