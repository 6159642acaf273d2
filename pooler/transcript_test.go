package pooler_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

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
			postgres, pooler := h.sides()
			direct, through := h.transcript(script, postgres), h.transcript(script, pooler)
			if !bytes.Equal(direct, through) {
				t.Errorf("direct:\n%q\nthrough the pooler:\n%q", direct, through)
			}
		})
	}
}

// transcript plays a script and returns what was answered.
func (h *house) transcript(script []pgtest.Step, on side) []byte {
	h.t.Helper()
	c, err := on.login()
	h.must(err)
	defer c.Close()
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
