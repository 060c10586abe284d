// Jobs is a harbour office that has its work done in the background: functions registered by name, called now or later
// with their arguments through a queue, with results, retries, progress, dead letters and a second chance for these.
//
//	go run ./examples/jobs                                                          # in memory, without any service
//	AMQP_URL=amqp://guest:guest@127.0.0.1:5672/ go run ./examples/jobs              # the same on RabbitMQ
//
// It prints the same story on both, and exits 1 if anything is not as it should be. On RabbitMQ it uses a namespace of its
// own and removes it in the end.
//
// Read package jobs for the job system, which is a few hundred lines on top of the verbs; package harbour for the functions,
// which import the standard library only; wiring.go for the contracts and the registrations; story.go for how it is used;
// and transports.go for the one place that knows what carries it.
package main
