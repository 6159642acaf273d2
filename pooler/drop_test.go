package pooler_test

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

// narrow is a link to PostgreSQL that takes a few kilobytes ahead, and can be made to stall.
type narrow struct {
	net.Listener
	to      string
	mu      sync.Mutex // held while it stalls
	passed  bytes.Buffer
	working sync.WaitGroup
}

func newNarrow(t *testing.T, to string) *narrow {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		_ = c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
		return err
	}}
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &narrow{Listener: l, to: to}
	n.working.Go(n.accept)
	t.Cleanup(func() {
		l.Close()
		n.working.Wait()
	})
	return n
}

func (n *narrow) accept() {
	for {
		from, err := n.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", n.to)
		if err != nil {
			from.Close()
			continue
		}
		n.working.Go(func() {
			defer to.Close()
			n.pass(to, from)
		})
		n.working.Go(func() {
			defer from.Close()
			_, _ = io.Copy(from, to) // until either ends
		})
	}
}

// pass carries what there is to PostgreSQL while the link does not stall.
func (n *narrow) pass(to io.Writer, from io.Reader) {
	for buf := make([]byte, 4096); ; {
		count, err := from.Read(buf)
		n.mu.Lock()
		n.passed.Write(buf[:count])
		_, failed := to.Write(buf[:count])
		n.mu.Unlock()
		if err != nil || failed != nil {
			return
		}
	}
}

// lastSent is what the link takes only once it is healed.
const lastSent = "INSERT INTO unsent VALUES (1); COMMIT"

// unsentInsert leaves an INSERT and its COMMIT behind on a link that stalls, ends the session and
// heals the link. Once nothing is open any more it reports whether they came through the link,
// and whether PostgreSQL has committed them: it need not, since a query whose client has left is
// cancelled.
func unsentInsert(t *testing.T, end func(h *house)) (arrived, committed bool) {
	t.Helper()
	link := newNarrow(t, postgres.TCP())
	h := newHouse(t, withHost(link.Addr().String()), withBudget(1))
	observer := h.superuser(pgtest.Database)
	h.query(observer, "DROP TABLE IF EXISTS unsent")
	h.query(observer, "CREATE TABLE unsent AS SELECT 0 AS n")
	h.query(observer, "GRANT ALL ON unsent TO PUBLIC")
	c := h.client()
	h.query(c, "BEGIN")
	link.mu.Lock()
	// One message: an answer to a first one could meet a closed socket, and the reset that it
	// causes drops what is unsent, whatever the end was.
	h.must(c.Send(pgtest.Encode('Q', "/*"+strings.Repeat("x", 100_000)+"*/ "+lastSent)))
	time.Sleep(300 * time.Millisecond) // the node has sent it by then; if not, nothing is left to be found
	end(h)
	link.mu.Unlock()
	h.await("nothing is open", func() bool { return h.Held()[h.pool.Key()] == 0 && h.backends(observer) == 0 })
	committed = h.query(observer, "SELECT count(*) FROM unsent")[0] != "1"
	link.mu.Lock()
	defer link.mu.Unlock()
	return strings.Contains(link.passed.String(), lastSent), committed
}

// TestWhatARevokedSessionHasNotGotThroughIsDropped, though the link heals later; its place is
// free once PostgreSQL is seen to have no backend for it.
func TestWhatARevokedSessionHasNotGotThroughIsDropped(t *testing.T) {
	arrived, committed := unsentInsert(t, func(h *house) {
		h.last().cut(revoked)
		h.awaitClosed("the cut is confirmed", h.last().confirmed)
		if s := h.status(); s.Open != 1 {
			t.Errorf("after the cut: %+v", s)
		}
	})
	if arrived || committed {
		t.Errorf("arrived: %v, committed: %v", arrived, committed)
	}
}

// TestWhatAClientHasSentBeforeItLeftArrives: an ordinary end drops nothing.
func TestWhatAClientHasSentBeforeItLeftArrives(t *testing.T) {
	if arrived, _ := unsentInsert(t, func(h *house) {
		h.last().cut(&armor.Denial{Reason: armor.ReasonShutdown, Message: "the node ends"})
		h.awaitClosed("the cut is confirmed", h.last().confirmed)
	}); !arrived {
		t.Error("it has not arrived")
	}
}
