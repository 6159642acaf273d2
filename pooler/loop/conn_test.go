//go:build linux

package loop

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"testing"
	"time"
)

// serverConfig makes a certificate for one test.
func serverConfig(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, SessionTicketsDisabled: true}
}

// pair is a connection to a client, which may speak TLS to the other end.
func pair(t *testing.T) (*Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := Client(server).(*Conn)
	t.Cleanup(func() { client.Close(); c.Close() })
	for _, c := range []net.Conn{client, server} {
		c.SetDeadline(time.Now().Add(30 * time.Second))
	}
	return c, client
}

// secured is a pair after the handshake.
func secured(t *testing.T) (*Conn, *tls.Conn, *tls.Conn) {
	t.Helper()
	conn, plain := pair(t)
	server, client := tls.Server(conn, serverConfig(t)), tls.Client(plain, &tls.Config{InsecureSkipVerify: true})
	shaken := make(chan error, 1)
	go func() { shaken <- client.Handshake() }()
	if err := errors.Join(server.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	return conn, server, client
}

// receive moves what the client has sent into memory, as a loop does, and returns how
// much that was.
func receive(t *testing.T, c *Conn) int {
	t.Helper()
	buf := make([]byte, 64<<10)
	c.mu.Lock()
	c.deadline[forRead] = time.Now().Add(30 * time.Second)
	c.mu.Unlock()
	n, err := c.blocking(forRead, func() (int, error) { return recv(c.fd, buf) })
	if err != nil {
		t.Fatal(err)
	}
	c.in = append(c.in, buf[:n]...)
	return n
}

func TestTLSGoesOnAfterErrAgain(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			conn, server, client := secured(t)
			if err := conn.Detach(); err != nil {
				t.Fatal(err)
			}
			var out []byte
			conn.memory, conn.out = true, &out
			buf := make([]byte, 1000)
			for range 3 {
				if n, err := server.Read(buf); n != 0 || !errors.Is(err, errAgain) {
					t.Fatalf("with nothing there: %d, %v", n, err)
				}
			}
			if _, err := client.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			for receive(t, conn) == 0 || wholeRecord(conn.in) == 0 {
			}
			whole := conn.in
			conn.in = whole[:len(whole)-1] // the end of the record is still on its way
			if n, err := server.Read(buf); n != 0 || !errors.Is(err, errAgain) {
				t.Fatalf("with half a record: %d, %v", n, err)
			}
			conn.in = whole
			if n, err := server.Read(buf); err != nil || string(buf[:n]) != "hello" {
				t.Fatalf("%q, %v", buf[:n], err)
			}
			if n, err := server.Write([]byte("answer")); err != nil || n != 6 || len(out) == 0 {
				t.Fatalf("%d bytes, %v", n, err)
			}
			if n, err := send(conn.fd, out); err != nil || n != len(out) {
				t.Fatalf("%d of %d bytes sent, %v", n, len(out), err)
			}
			if n, err := client.Read(buf); err != nil || string(buf[:n]) != "answer" {
				t.Fatalf("%q, %v", buf[:n], err)
			}
		})
	}
}

func TestNothingIsLeftInTLSWhenTheConnectionChangesHands(t *testing.T) {
	conn, server, client := secured(t)
	for _, text := range []string{"first", "second", "third"} {
		if _, err := client.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 1000)
	if n, err := server.Read(buf); err != nil || string(buf[:n]) != "first" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if err := conn.Detach(); err != nil {
		t.Fatal(err)
	}
	if n, err := server.Read(buf); err != nil || string(buf[:n]) != "second" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	var out []byte
	conn.memory, conn.out = true, &out
	for wholeRecord(conn.in) == 0 {
		receive(t, conn)
	}
	if n, err := server.Read(buf); err != nil || string(buf[:n]) != "third" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if len(conn.in) != 0 {
		t.Errorf("%d bytes too many were received", len(conn.in))
	}
	conn.memory = false
	if _, err := server.Write([]byte("back")); err != nil {
		t.Fatal(err)
	}
	if n, err := client.Read(buf); err != nil || string(buf[:n]) != "back" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
}

func TestDetachedConnectionIsAnOrdinaryOne(t *testing.T) {
	conn, client := pair(t)
	conn.records = false
	if err := conn.Detach(); err != nil {
		t.Fatal(err)
	}
	if conn.Readable() {
		t.Error("nothing has arrived, and it is readable")
	}
	sent := bytes.Repeat([]byte("x"), 8<<20) // more than the sockets hold
	go func() {
		conn.Write(sent)
		conn.CloseWrite()
	}()
	got, err := io.ReadAll(client)
	if err != nil || len(got) != len(sent) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if _, err := client.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "answer" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := conn.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("after the deadline: %v", err)
	}
	conn.SetReadDeadline(time.Time{})
	client.Close()
	if _, err := conn.Read(buf); !errors.Is(err, io.EOF) {
		t.Fatalf("at the end: %v", err)
	}
}

func TestCloseEndsAReadInProgress(t *testing.T) {
	conn, _ := pair(t)
	conn.records = false
	if err := conn.Detach(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		ended <- err
	}()
	for conn.inUse() == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("the read has succeeded")
	}
	if err := conn.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed again: %v", err)
	}
	if _, err := conn.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
}

func (c *Conn) inUse() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.users
}
