package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/armordb/armordb/armor/process"
)

// echo answers each client on a Unix socket with the line that it was sent, and leaves as
// the client does: a relay hears of both ends at once. It returns the socket's path.
func echo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var connections sync.WaitGroup
	connections.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Go(func() {
				defer c.Close()
				if line, err := bufio.NewReader(c).ReadString('\n'); err == nil {
					_, _ = io.WriteString(c, line) // the client checks what comes back
				}
			})
		}
	})
	t.Cleanup(connections.Wait)
	t.Cleanup(func() { l.Close() })
	return path
}

// comeAndGo has clients connect, say a word, hear it again and leave, all at once: no
// relay may give one the word of another, or none.
func comeAndGo(t *testing.T, port int) {
	t.Helper()
	var clients sync.WaitGroup
	for id := range 16 {
		clients.Go(func() {
			for i := range 200 {
				if err := heard(port, fmt.Sprintf("client %d, word %d\n", id, i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
}

func heard(port int, word string) error {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, word); err != nil {
		return err
	}
	back, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && back != word {
		err = fmt.Errorf("sent %q, got %q", word, back)
	}
	return err
}

func TestRelayLosesNothingWhileClientsComeAndGo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	port, ended := make(chan int, 1), make(chan error, 1)
	go func() { ended <- Relay(ctx, echo(t), func(p int) { port <- p }) }()
	select {
	case p := <-port:
		comeAndGo(t, p)
	case err := <-ended:
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip("needs epoll")
		}
		t.Fatal(err)
	}
}

func TestRelayInCLosesNothingWhileClientsComeAndGo(t *testing.T) {
	b := &comparison{Options: Options{Dir: t.TempDir()}}
	program, err := b.compileRelay(t.Context())
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("needs a C compiler")
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, echo(t))
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := process.Start(cmd, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(syscall.SIGKILL, 0) })
	var port int
	if _, err := fmt.Fscan(said, &port); err != nil {
		t.Fatal(err)
	}
	comeAndGo(t, port)
}
