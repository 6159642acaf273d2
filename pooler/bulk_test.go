package pooler_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

func TestCopyBothWays(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode))
		c := h.client()
		table := "copied_" + string(mode)
		h.query(c, "CREATE TABLE "+table+" (n int, s text)")
		defer h.query(c, "DROP TABLE "+table)
		h.must(c.Send(pgtest.Encode('Q', "COPY "+table+" FROM STDIN")))
		m, err := c.Receive()
		h.must(err)
		if m.Type != 'G' {
			t.Fatalf("got %v, want CopyInResponse", m)
		}
		const rows = 50000
		for i := range rows {
			h.must(c.Send(pgtest.Encode('d', fmt.Appendf(nil, "%d\t%s\n", i, bytes.Repeat([]byte("x"), i%200)))))
		}
		h.must(c.Send(pgtest.Encode('c')))
		_, err = c.Answer()
		h.must(err)
		if got := h.query(c, "SELECT count(*) || ' ' || sum(n) FROM "+table); got[0] != fmt.Sprintf("%d %d", rows, rows*(rows-1)/2) {
			t.Errorf("got %q", got)
		}
		h.must(c.Send(pgtest.Encode('Q', "COPY "+table+" TO STDOUT")))
		all, err := c.Until('Z')
		h.must(err)
		if len(all) != rows+4 { // CopyOutResponse, CopyDone, CommandComplete, ReadyForQuery
			t.Errorf("%d messages for %d rows", len(all), rows)
		}
	})
}

// TestFailedCopyIsAnswered: PostgreSQL answers before it has read everything.
func TestFailedCopyIsAnswered(t *testing.T) {
	bothModes(t, func(t *testing.T, mode armor.PoolMode) {
		h := newHouse(t, inMode(mode))
		c := h.client()
		h.query(c, "CREATE TABLE IF NOT EXISTS numbers (n int)")
		h.must(c.Send(pgtest.Encode('Q', "COPY numbers FROM STDIN")))
		_, err := c.Until('G')
		h.must(err)
		sent := make(chan error, 1)
		go func() {
			bad := pgtest.Encode('d', []byte("nonsense\n"))
			for range 1000 {
				if err := c.Send(bytes.Repeat(bad, 100)); err != nil {
					sent <- err
					return
				}
			}
			sent <- c.Send(pgtest.Encode('c'))
		}()
		_, err = c.Answer()
		h.wantRefusal(err, "ERROR", "22P02")
		h.must(<-sent)
		if got := h.query(c, "SELECT 1"); got[0] != "1" {
			t.Errorf("got %q", got)
		}
	})
}

func TestLargeResultsNeedLittleMemory(t *testing.T) {
	const size = 200 << 20
	h := newHouse(t)
	c := h.client()
	h.must(c.Send(pgtest.Encode('Q', fmt.Sprintf("SELECT repeat('x', %d) FROM generate_series(1, 4)", size/4))))
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	var got, most uint64
	buf := make([]byte, 1<<20)
	var last []byte // read so far
	for !bytes.HasSuffix(last, []byte("Z\x00\x00\x00\x05I")) {
		n, err := c.Read(buf)
		h.must(err)
		got += uint64(n)
		last = append(last, buf[:n]...)
		last = append([]byte(nil), last[max(0, len(last)-16):]...)
		runtime.ReadMemStats(&now)
		most = max(most, now.HeapAlloc)
	}
	if got < size {
		t.Errorf("the result has %d bytes", got)
	}
	if over := int64(most) - int64(before.HeapAlloc); over > 32<<20 {
		t.Errorf("the heap grew by %d MB for a result of 200 MB", over>>20)
	}
}

// TestLargeParametersAndLargeAnswersCross: the client sends more than all buffers hold, while
// PostgreSQL answers more than they hold.
func TestLargeParametersAndLargeAnswersCross(t *testing.T) {
	h := newHouse(t)
	c := h.client()
	value := bytes.Repeat([]byte("y"), 1<<20)
	bind := pgtest.Encode('B', "", "", int16(0), int16(1), int32(len(value)), value, int16(0))
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() {
		_ = c.Send(pgtest.Encode('P', "", "SELECT $1::text || $1", int16(0))) // the answers tell
		for range 32 {
			_ = c.Send(bind, pgtest.Encode('E', "", int32(0)))
		}
		_ = c.Send(pgtest.Encode('S'))
	})
	all, err := c.Until('Z')
	h.must(err)
	rows := 0
	for _, m := range all {
		if m.Type == 'D' {
			if size := binary.BigEndian.Uint32(m.Body[2:]); size != 2<<20 {
				t.Fatalf("value of %d bytes", size)
			}
			rows++
		}
	}
	if rows != 32 {
		t.Errorf("%d rows", rows)
	}
}

// TestClientsThatLeaveNeverCostMoreThanTheBudget is GUARANTEES trap 17: a slot that
// were freed by closing our side would let PostgreSQL run many times the budget.
func TestClientsThatLeaveNeverCostMoreThanTheBudget(t *testing.T) {
	const budget = 5
	h := newHouse(t, withBudget(budget))
	observer := h.observer()
	var clients sync.WaitGroup
	for range 30 {
		clients.Go(func() {
			for range 3 {
				h.leaveInMidQuery()
			}
		})
	}
	left := make(chan struct{})
	go func() { clients.Wait(); close(left) }()
	for most := 0; ; {
		n := h.backends(observer)
		if most = max(most, n); n > budget {
			t.Fatalf("%d backends of a budget of %d", n, budget)
		}
		held := h.Held()[h.pool.Key()]
		for tries := 0; held < n && tries < 5; tries++ { // some may have ended between the two
			n, held = h.backends(observer), h.Held()[h.pool.Key()]
		}
		if held > budget || held < n {
			t.Fatalf("held %d, and PostgreSQL has %d", held, n)
		}
		select {
		case <-left:
			if most < budget {
				t.Errorf("only %d backends were ever seen", most)
			}
			return
		default:
		}
	}
}

// leaveInMidQuery runs a query that never ends by itself, and closes the connection
// once PostgreSQL has sent the first row.
func (h *house) leaveInMidQuery() {
	conn, err := net.Dial("tcp", h.address)
	if err != nil {
		h.t.Error(err)
		return
	}
	defer conn.Close()
	c := &pgtest.Client{Conn: conn}
	if err := c.Login("user", pgtest.Role, "database", "orders"); err != nil {
		h.t.Error(err)
		return
	}
	if err := c.Send(pgtest.Encode('Q', "SELECT repeat('x', 1000), generate_series(1, 1000000000)")); err != nil {
		h.t.Error(err)
		return
	}
	if _, err := c.Until('D'); err != nil {
		h.t.Error(err)
	}
}
