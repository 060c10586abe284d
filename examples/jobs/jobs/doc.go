// Package jobs runs functions in the background, on any transport that has groups: the caller names a function, gives it
// arguments and goes on, or waits. It is what Celery, Sidekiq or asynq are for, and it is small because the verbs do most
// of it:
//
//	what a job system needs        what it is made of
//	a queue                        a topic and a group of workers, see [Queue]
//	a function known by name       a contract and an entry in a [transport.Mux], see [Func] and [Registry]
//	at least once, with retries    the group's redelivery, see [Work]
//	backoff                        RetryAfter of the error that a worker settles with
//	later, first, only once        the headers delay, priority, idempotency-key, see [Option]
//	only once, in the worker       [middleware.Dedup]
//	results and progress           a topic with events, see [Update] and [Client]
//	a dead letter queue, a retry   the group's DeadLetter topic, see [DeadLetters] and [Redrive]
//
// # Wire format
//
// A job is one event on the topic Name.run. Its ID is the job's, its header job-func names the function, its body has the
// arguments as JSON. Any program that can publish can enqueue one:
//
//	topic  harbour.run
//	id     b7Jx0000000001
//	header job-func: pictures.thumbnail, content-type: application/json, delay: 60000
//	body   {"file":"harbour.jpg","width":160}
//
// What becomes of it is told on Name.updates, as JSON too; a job that is refused or given up on goes to Name.dead, as it
// was enqueued.
//
// # Delivery
//
// A job runs at least once. It is handed out until its result has been published; Dedup sees to it that a worker that
// knows the outcome publishes it again and does not work again. A worker that dies between the work and the record works
// twice: functions have to bear that.
//
// Updates are for who listens: a client that is away when a result is published does not see it. What must not be lost
// belongs where the function writes to.
//
// # Limits
//
// A job, and its result, are messages: 1 MiB by default. A client follows up to [MaxFollowed] jobs and keeps up to
// [MaxUpdates] of each that nobody has read; the oldest are dropped and counted in [Update].Missed.
package jobs
