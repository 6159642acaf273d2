package pooler_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

// TestTranscriptsAreEqualInSessionMode sends the same bytes to PostgreSQL and through
// the pooler; what comes back must be the same.
func TestTranscriptsAreEqualInSessionMode(t *testing.T) {
	scripts, err := filepath.Glob("testdata/wire/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range scripts {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			script, err := pgtest.ParseScript(string(text))
			if err != nil {
				t.Fatal(err)
			}
			h := newHouse(t, inMode(armor.SessionMode))
			direct := h.transcript(script, func() *pgtest.Client { return h.direct() })
			through := h.transcript(script, func() *pgtest.Client { return h.client() })
			if !bytes.Equal(direct, through) {
				t.Errorf("direct:\n%q\nthrough the pooler:\n%q", direct, through)
			}
		})
	}
}

// direct is a client of PostgreSQL itself, in the same role.
func (h *house) direct() *pgtest.Client {
	h.t.Helper()
	conn, err := net.Dial("unix", postgres.SocketFile())
	h.must(err)
	h.t.Cleanup(func() { conn.Close() })
	c := &pgtest.Client{Conn: conn}
	h.must(c.Login("user", pgtest.SuperUser, "database", pgtest.Database))
	h.query(c, "SET SESSION AUTHORIZATION "+pgtest.Role)
	return c
}

// transcript plays a script and returns what was answered, normalised.
func (h *house) transcript(script []pgtest.Step, dial func() *pgtest.Client) []byte {
	h.t.Helper()
	c := dial()
	h.must(c.SetDeadline(time.Now().Add(patience)))
	var all []byte
	for _, step := range script {
		replies, err := c.Play(step)
		if err != nil {
			h.t.Fatalf("%s: %v after %v", step, err, replies)
		}
		for _, m := range replies {
			all = append(binary.BigEndian.AppendUint32(append(all, m.Type), uint32(len(m.Body))), m.Body...)
		}
	}
	return all
}
