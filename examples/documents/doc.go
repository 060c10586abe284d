// Documents runs one business function, [document.ProcessDocument], in every way that it can be reached: called and
// waited for, submitted as a job that is pushed to a worker, and submitted as a job that a worker pulls; on each
// transport that this library has. The function, its contracts and its bindings are the same in all of them.
//
//	go run ./examples/documents           # the documents that come with it
//	go run ./examples/documents FILE…     # your own: .md is Markdown, all else plain text
//
// RabbitMQ is among the transports if AMQP_URL has the address of a broker, such as amqp://guest:guest@127.0.0.1:5672/;
// else one line says that it is left out.
//
// It prints what is in each document, and a table of latencies: p50 means that half of the documents took at most so
// long. The rows must agree on what is in the documents; the digest covers all answers, byte for byte. It exits 1 if
// they do not, or if a file could not be processed.
//
// Read wiring.go for the contracts and the bindings, modes.go for calls, push and pull, and transports.go for the one
// line that each transport takes.
package main
