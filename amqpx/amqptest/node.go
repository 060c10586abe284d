package amqptest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// startTimeout bounds a start where ctx has no deadline: ten times what it takes on an idle machine.
const startTimeout = 60 * time.Second

// Options are for Start. Nil and zero fields mean the defaults.
type Options struct {
	// Config is added to rabbitmq.conf, in its form ("consumer_timeout = 5000"). What it sets wins.
	Config string
	// Plugins are enabled, such as "rabbitmq_consistent_hash_exchange". By default there are none.
	Plugins []string
}

// A Node is a private RabbitMQ broker. Stop it in the end. Safe for concurrent use.
type Node struct {
	in   installation
	dir  string
	env  []string
	port int
	name string

	mu     sync.Mutex
	epmd   *process
	broker *process // the last one; it may have ended
}

// Start starts a node and returns when it takes connections. ctx bounds the start only; without a deadline it takes at
// most a minute. The error is [ErrNotInstalled] where there is no RabbitMQ; that of a node which fails to start has the
// end of its log.
func Start(ctx context.Context, o *Options) (*Node, error) {
	if o == nil {
		o = &Options{}
	}
	in, err := find()
	if err != nil {
		return nil, err
	}
	n := &Node{in: in}
	if n.dir, err = directory(); err != nil {
		return nil, err
	}
	if err = n.prepare(o); err == nil {
		err = n.start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, n.Stop())
	}
	return n, nil
}

// directory makes one whose path is short enough for the name of a socket in it.
func directory() (string, error) {
	dir, err := os.MkdirTemp("", "amqptest")
	if err == nil && len(dir) > 80 {
		os.Remove(dir)
		dir, err = os.MkdirTemp("/tmp", "amqptest")
	}
	return dir, err
}

// prepare writes the node's files and starts its port mapper.
func (n *Node) prepare(o *Options) error {
	var ports [3]int
	for i := range ports {
		p, err := freePort()
		if err != nil {
			return err
		}
		ports[i] = p
	}
	n.port = ports[0]
	n.name = fmt.Sprintf("amqptest%d@localhost", n.port)
	mapper := strconv.Itoa(ports[2])
	path := filepath.Dir(n.in.epmd) + ":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:/opt/homebrew/bin"
	n.env = []string{"PATH=" + path, "HOME=" + n.dir, "LANG=C.UTF-8",
		"RABBITMQ_NODENAME=" + n.name, "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		"RABBITMQ_NODE_PORT=" + strconv.Itoa(n.port), "RABBITMQ_DIST_PORT=" + strconv.Itoa(ports[1]),
		"RABBITMQ_MNESIA_BASE=" + n.dir + "/mnesia", "RABBITMQ_LOG_BASE=" + n.dir + "/log",
		"RABBITMQ_PID_FILE=" + n.dir + "/pid", "RABBITMQ_CONFIG_FILE=" + n.dir + "/rabbitmq.conf",
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + n.dir + "/enabled_plugins", "RABBITMQ_CONF_ENV_FILE=/dev/null",
		"ERL_EPMD_ADDRESS=127.0.0.1", "ERL_EPMD_PORT=" + mapper,
		"ERL_FLAGS=-start_epmd false", // else Erlang starts one that nobody watches
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
		// The server script replaces itself by the broker where this is set, so that there is one process to kill.
		"NOTIFY_SOCKET=" + n.socket()}
	config := fmt.Sprintf("listeners.tcp.1 = 127.0.0.1:%d\nvm_memory_high_watermark.absolute = 1GB\n"+
		"disk_free_limit.absolute = 50MB\nraft.wal_max_size_bytes = 67108864\n%s\n", n.port, o.Config)
	for name, text := range map[string]string{"rabbitmq.conf": config, ".erlang.cookie": rand.Text(),
		"enabled_plugins": "[" + strings.Join(o.Plugins, ",") + "]."} {
		if err := os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o400); err != nil {
			return err
		}
	}
	// The port mapper lives as long as the Node, so its watcher is the one that removes the directory.
	var err error
	if n.epmd, err = run(n.dir, n.env, nil, "sleep 1; rm -rf '"+n.dir+"'", n.in.epmd); err != nil {
		return err
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("tcp", "127.0.0.1:"+mapper)
		if err == nil {
			return c.Close()
		}
		if n.epmd.ended() || time.Now().After(end) {
			return fmt.Errorf("amqptest: %s does not start: %w", n.in.epmd, err)
		}
	}
}

// freePort returns a port that nobody listens on. It is none of those that the kernel gives to outgoing connections:
// one of these could take it while the node is down.
func freePort() (int, error) {
	for {
		r, err := rand.Int(rand.Reader, big.NewInt(20000))
		if err != nil {
			return 0, err
		}
		port := 12000 + int(r.Int64())
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, l.Close()
		}
	}
}

func (n *Node) socket() string { return filepath.Join(n.dir, "notify") }

// start runs the broker and waits until it is ready.
func (n *Node) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	os.Remove(n.socket())
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.socket(), Net: "unixgram"})
	if err != nil {
		return err
	}
	defer ready.Close()
	log, err := os.Create(filepath.Join(n.dir, "output"))
	if err != nil {
		return err
	}
	defer log.Close()
	if n.broker, err = run(n.dir, n.env, log, "", n.in.server); err != nil {
		return err
	}
	text := make([]byte, 4096)
	answers := 0
	for ctx.Err() == nil && !n.broker.ended() {
		ready.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		k, err := ready.Read(text)
		if err == nil && bytes.Contains(text[:k], []byte("READY=1")) {
			return nil
		}
		// The notice needs socat with some versions. A node that has greeted for 2 seconds is ready without it.
		if err != nil && n.greets() {
			if answers++; answers == 10 {
				return nil
			}
		}
	}
	written, _ := os.ReadFile(log.Name())
	if len(written) > 4096 {
		written = written[len(written)-4096:]
	}
	err = ctx.Err()
	if err == nil {
		err = errors.New("it has ended")
	}
	n.broker.kill()
	return fmt.Errorf("amqptest: the node does not start: %w\n%s", err, written)
}

// greets reports whether the broker takes part in an AMQP handshake (AMQP 0-9-1, 4.2.2).
func (n *Node) greets() bool {
	c, err := net.DialTimeout("tcp", n.Addr(), 100*time.Millisecond)
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(200 * time.Millisecond))
	c.Write([]byte("AMQP\x00\x00\x09\x01"))
	var frame [11]byte // type, channel, size, class 10 (connection), method 10 (start)
	_, err = io.ReadFull(c, frame[:])
	return err == nil && frame[0] == 1 && frame[8] == 10 && frame[10] == 10
}

// Addr is the host and port the node listens on. It stays the same over restarts.
func (n *Node) Addr() string { return fmt.Sprintf("127.0.0.1:%d", n.port) }

// URL is the address for clients, with the credentials of the default user, and without a virtual host, which all
// clients take for the default one.
func (n *Node) URL() string { return "amqp://guest:guest@" + n.Addr() }

// Kill ends the broker by SIGKILL, as a crash does. Its data stay for Restart.
//
// A queue of type quorum needs a second after it was declared for the first time: a kill before that may leave it
// without a leader for good, in every version of RabbitMQ (rabbitmq-server #15725). Tests wait for 2 seconds.
func (n *Node) Kill() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.broker.kill()
}

// Restart starts the broker again on its data, after an orderly stop if it is running. ctx is as in [Start]. After an
// error it can be tried again.
func (n *Node) Restart(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.broker.stop(20 * time.Second); err != nil {
		return err
	}
	return n.start(ctx)
}

// Stop ends the node and removes its files. The Node cannot be used again. Stopping twice is safe.
func (n *Node) Stop() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, p := range []*process{n.broker, n.epmd} {
		if p != nil {
			errs = append(errs, p.kill()) // the data go anyway
		}
	}
	return errors.Join(append(errs, os.RemoveAll(n.dir))...)
}

// Ctl runs rabbitmqctl on the node, such as Ctl(ctx, "list_queues"), and returns what it printed. It takes about half a
// second.
func (n *Node) Ctl(ctx context.Context, args ...string) ([]byte, error) {
	out, err := output(ctx, n.dir, n.env, append([]string{n.in.ctl, "-q", "-n", n.name}, args...)...)
	if err != nil {
		return out, fmt.Errorf("amqptest: rabbitmqctl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return out, nil
}
