package amqptest_test

import (
	"io"
	"net"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/intermodal-go/intermodal/amqpx/amqptest"
)

func TestRelay(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	defer func() { echo.Close(); <-done }()
	go func() {
		defer close(done)
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	relay := amqptest.NewRelay(t, "amqp://user:pass@"+echo.Addr().String()+"/vhost")
	defer relay.Close()
	u, err := url.Parse(relay.URL())
	require.NoError(t, err)
	require.Equal(t, "/vhost", u.Path)
	require.Equal(t, "user:pass", u.User.String())

	dial := func() net.Conn {
		c, err := net.Dial("tcp", u.Host)
		require.NoError(t, err)
		return c
	}
	say := func(c net.Conn, text string) { // and hear it
		_, err := io.WriteString(c, text)
		require.NoError(t, err)
		heard := make([]byte, len(text))
		_, err = io.ReadFull(c, heard)
		require.NoError(t, err)
		require.Equal(t, text, string(heard))
	}
	ends := func(c net.Conn) {
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err := c.Read(make([]byte, 1))
		require.Error(t, err)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
		c.Close()
	}

	a, b := dial(), dial()
	say(a, "one")
	say(b, "two")
	require.Equal(t, 2, relay.Cut())
	ends(a)
	ends(b)

	c := dial()
	say(c, "three")
	relay.Stall()
	_, err = io.WriteString(c, "four")
	require.NoError(t, err)
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, "silent, not closed")
	relay.Resume()
	c.SetReadDeadline(time.Time{})
	heard := make([]byte, 4)
	_, err = io.ReadFull(c, heard)
	require.NoError(t, err)
	require.Equal(t, "four", string(heard))

	d := dial()
	say(d, "six")
	relay.Stall()
	d.(*net.TCPConn).CloseWrite() // the echo would hang up on this
	d.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, err = d.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, "the end is not heard either")
	relay.Resume()
	ends(d)

	relay.Refuse()
	if refused, err := net.Dial("tcp", u.Host); err == nil { // else it was closed before the dial was done
		ends(refused)
	}
	say(c, "five")
	relay.Stall()
	require.Positive(t, relay.Cut(), "also while it is silent; d may not be forgotten yet")
	ends(c)
}
