package dev

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// startBalancer runs a balancer over the addresses until the test ends.
func startBalancer(t *testing.T, targets ...*target) (address string, stop func()) {
	t.Helper()
	b := &balancer{listener: listen(t), targets: targets, log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(stop)
	return b.listener.Addr().String(), stop
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// serveEach answers every connection on a fresh listener with handle.
func serveEach(t *testing.T, handle func(*net.TCPConn)) *target {
	t.Helper()
	l := listen(t)
	var connections sync.WaitGroup
	connections.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Go(func() {
				defer c.Close()
				handle(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { l.Close(); connections.Wait() })
	return &target{address: l.Addr().String()}
}

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(30 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func name(s string) func(*net.TCPConn) {
	return func(c *net.TCPConn) { io.WriteString(c, s) }
}

func TestConnectionsGoAroundAndPassOverDeadNodes(t *testing.T) {
	gone := listen(t)
	gone.Close()
	address, _ := startBalancer(t, serveEach(t, name("a")), &target{address: gone.Addr().String()}, serveEach(t, name("b")))
	count := map[string]int{}
	for range 30 {
		answer, err := io.ReadAll(dial(t, address))
		if err != nil {
			t.Fatal(err)
		}
		count[string(answer)]++
	}
	if count["a"] < 10 || count["b"] < 10 || count["a"]+count["b"] != 30 {
		t.Errorf("answers: %v", count)
	}
}

func TestNodeKnownToBeDownComesLast(t *testing.T) {
	stopped := serveEach(t, name("down"))
	stopped.down.Store(true)
	address, _ := startBalancer(t, stopped, serveEach(t, name("up")))
	for range 4 {
		if answer, err := io.ReadAll(dial(t, address)); err != nil || string(answer) != "up" {
			t.Fatalf("answer %q, %v", answer, err)
		}
	}
}

func TestEndOfOneDirectionLeavesTheOther(t *testing.T) {
	address, _ := startBalancer(t, serveEach(t, func(c *net.TCPConn) {
		all, _ := io.ReadAll(c) // ends only if the client's end is passed on
		c.Write(bytes.ToUpper(all))
	}))
	c := dial(t, address)
	io.WriteString(c, strings.Repeat("abc", 100_000))
	c.CloseWrite()
	answer, err := io.ReadAll(c)
	if err != nil || string(answer) != strings.Repeat("ABC", 100_000) {
		t.Fatalf("%d bytes, %v", len(answer), err)
	}
}

func TestResetIsPassedOnAsReset(t *testing.T) {
	address, _ := startBalancer(t, serveEach(t, func(c *net.TCPConn) {
		io.WriteString(c, "half a mess")
		c.Read(make([]byte, 1))
		reset(c)
	}))
	c := dial(t, address)
	if _, err := io.ReadFull(c, make([]byte, len("half a mess"))); err != nil {
		t.Fatal(err)
	}
	c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Fatalf("read = %v, want a reset", err)
	}
}

func TestStoppingTheBalancerEndsLiveConnections(t *testing.T) {
	address, stop := startBalancer(t, serveEach(t, func(c *net.TCPConn) {
		io.WriteString(c, "x")
		io.Copy(io.Discard, c)
	}))
	c := dial(t, address)
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Fatal("the connection is still there")
	}
}

func TestWithoutAnyNodeTheClientIsClosed(t *testing.T) {
	address, _ := startBalancer(t, &target{address: "127.0.0.1:1"})
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return // reset before the dial had returned
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read = %v", err)
	}
}
