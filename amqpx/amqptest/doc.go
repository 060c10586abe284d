// Package amqptest starts private RabbitMQ nodes for tests and examples.
//
// A test that needs a broker, and does not disturb it, asks for an address:
//
//	func TestOrders(t *testing.T) {
//		client, err := amqpx.Dial(t.Context(), amqptest.URL(t), nil)
//
// That is AMQP_URL where the environment has it, else a node that the test binary starts on first use and shares among
// its tests. A test about faults starts a node of its own, and then kills it and starts it again on its data:
//
//	node, err := amqptest.Start(ctx, nil)
//	defer node.Stop()
//	node.Kill() // SIGKILL
//	node.Restart(ctx)
//
// To break the network and not the broker there is [Relay].
//
// # What a node is
//
// A node has ports, directories, a cookie and a port mapper (epmd) of its own, listens on 127.0.0.1 only, and takes
// about 4 seconds to start. It needs Unix and an installed RabbitMQ with its Erlang: "apt-get install rabbitmq-server",
// "brew install rabbitmq", or an unpacked release whose sbin folder is on PATH. RABBITMQ_SERVER may name another
// rabbitmq-server script to use.
//
// Nothing is left behind, neither a process nor a file, even when the program that started the node is killed by
// SIGKILL. Each process of a node has a watcher, a shell that reads from a pipe whose other end only that program has
// open. When the program ends, however it ends, the kernel closes the pipe and the watcher kills its process.
//
// A running node has no goroutine in the program, so that tests which look for leaked goroutines see none.
package amqptest
