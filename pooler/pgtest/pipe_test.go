package pgtest

import (
	"crypto/tls"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestPipeEndsAndResets(t *testing.T) {
	a, b := Pipe(8)
	if _, err := a.Write([]byte("12345678")); err != nil {
		t.Fatal(err)
	}
	if !b.Readable() || a.Readable() {
		t.Error("readable on the wrong side")
	}
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); string(got) != "12345678" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := b.Write([]byte("x")); err != nil {
		t.Errorf("after the other side's half-close: %v", err)
	}
	_ = b.SetLinger(0)
	b.Close()
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a reset: %v", err)
	}
}

func TestPipeDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := Pipe(4)
		began := time.Now()
		_ = a.SetDeadline(began.Add(time.Minute))
		if n, err := a.Write([]byte("12345")); n != 4 || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("wrote %d, %v, after %s", n, err, time.Since(began))
		}
		_ = a.SetReadDeadline(time.Time{})
		go func() {
			time.Sleep(time.Hour)
			_ = a.SetReadDeadline(time.Unix(1, 0))
		}()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Hour+time.Minute {
			t.Errorf("read ended with %v after %s", err, time.Since(began))
		}
	})
}

// TestPipeCarriesTLS: both sides write at once in a handshake's end, which deadlocks
// over net.Pipe.
func TestPipeCarriesTLS(t *testing.T) {
	certificate, err := NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	a, b := Pipe(1 << 10)
	client := tls.Client(a, &tls.Config{RootCAs: certificate.Roots, ServerName: "localhost"})
	server := tls.Server(b, &tls.Config{Certificates: []tls.Certificate{certificate.TLS}})
	go func() {
		defer server.Close()
		_, _ = io.Copy(server, server) // the client sees what comes back
	}()
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(client, got); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	client.Close()
}

func TestScriptsAreRead(t *testing.T) {
	steps, err := ParseScript("# comment\n\nparse a SELECT $1 | bind a x y | sync => 3\nquery SELECT 1 => ready\n")
	if err != nil || len(steps) != 2 || len(steps[0].Send) != 3 || steps[0].Replies != 3 || steps[1].Replies != 0 {
		t.Fatalf("got %v, %v", steps, err)
	}
	if got, want := string(steps[1].Send[0]), "Q\x00\x00\x00\x0dSELECT 1\x00"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, bad := range []string{"query SELECT 1", "query SELECT 1 => x", "shout => 1"} {
		if _, err := ParseScript(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
