package pooler_test

import (
	"bytes"
	"encoding/binary"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgtest"
)

// normal is all in which two conversations may differ that are the same.
// TestNormaliserHasNothingToSpare proves each entry needed by its witness.
var normal = []normalisation{
	{name: "oid", witness: block{query("CREATE TABLE made_w0 (a int); SELECT * FROM made_w0")}, apply: each(hideOIDs)},
	{name: "pid", witness: block{query("LISTEN own_w0; NOTIFY own_w0")}, apply: hideOwnPID},
	{name: "temp", witness: block{query("CREATE TEMP TABLE t (a int UNIQUE); INSERT INTO t VALUES (1), (1)")}, apply: each(hideTempSchema)},
	{name: "notifier", mode: armor.TransactionMode, witness: block{query("BEGIN; LISTEN own_w0; NOTIFY own_w0; COMMIT")}, apply: each(hidePID)},
	{name: "warning", mode: armor.TransactionMode, witness: block{query("SET work_mem = '7MB'")}, apply: dropWarnings},
	{name: "failed", mode: armor.TransactionMode, witness: block{
		parse("s", "SELECT 1"), syncCycle(), call(99_999).waiting(untilReady), // after which the server connection is reset
		query("BEGIN").waiting(untilReady), query("SELECT 1/0"), bind("", "s", nil), syncCycle(),
	}, apply: hideFailedErrors},
}

// normalisation is one of them.
type normalisation struct {
	name    string
	mode    armor.PoolMode // the only one that needs it; empty: all
	witness block          // what differs without it
	// apply gets the process id of BackendKeyData and changes a transcript in place.
	apply func(own uint32, transcript []pgtest.Message) []pgtest.Message
}

// normalise applies all entries for the mode but one.
func normalise(own uint32, mode armor.PoolMode, but string, transcript []pgtest.Message) []pgtest.Message {
	for _, n := range normal {
		if n.name != but && (n.mode == "" || n.mode == mode) {
			transcript = n.apply(own, transcript)
		}
	}
	return transcript
}

// each is an entry that looks at one message at a time.
func each(change func(m *pgtest.Message)) func(uint32, []pgtest.Message) []pgtest.Message {
	return func(_ uint32, transcript []pgtest.Message) []pgtest.Message {
		for i := range transcript {
			change(&transcript[i])
		}
		return transcript
	}
}

// firstOID is the first that a table or a type of a user can have.
const firstOID = 16384

// hideOIDs puts one value in the place of all OIDs of tables and types that a program
// has made, in a RowDescription.
func hideOIDs(m *pgtest.Message) {
	if m.Type != 'T' {
		return
	}
	hide := func(at int) {
		if oid := m.Body[at : at+4]; binary.BigEndian.Uint32(oid) >= firstOID {
			binary.BigEndian.PutUint32(oid, firstOID)
		}
	}
	for at := 2; at < len(m.Body); {
		at += bytes.IndexByte(m.Body[at:], 0) + 1
		hide(at)     // the table
		hide(at + 6) // the type
		at += 18
	}
}

// hideOwnPID hides the process id in a notification if it is the client's own: as
// BackendKeyData has it.
func hideOwnPID(own uint32, transcript []pgtest.Message) []pgtest.Message {
	for _, m := range transcript {
		if m.Type == 'A' && binary.BigEndian.Uint32(m.Body) == own {
			clear(m.Body[:4])
		}
	}
	return transcript
}

// hidePID hides the process id in a notification: in transaction mode it is not the one of
// BackendKeyData.
func hidePID(m *pgtest.Message) {
	if m.Type == 'A' {
		clear(m.Body[:4])
	}
}

var tempSchema = regexp.MustCompile(`pg_temp_\d+`)

// hideTempSchema hides the number of a schema of temporary tables.
func hideTempSchema(m *pgtest.Message) {
	if m.Type == 'E' || m.Type == 'N' {
		m.Body = tempSchema.ReplaceAll(m.Body, []byte("pg_temp_N"))
	}
}

// dropWarnings leaves out what the pooler says of a command that leaves session state
// (docs/pooling.md).
func dropWarnings(_ uint32, transcript []pgtest.Message) []pgtest.Message {
	return slices.DeleteFunc(transcript, func(m pgtest.Message) bool {
		return m.Type == 'N' && m.Fields()['C'] == "01000" && strings.HasSuffix(m.Fields()['M'], " is not kept between transactions")
	})
}

// hideFailedErrors makes all errors in a block that has failed the same: a statement that
// the server connection lacks cannot be prepared there (docs/pooling.md).
func hideFailedErrors(_ uint32, transcript []pgtest.Message) []pgtest.Message {
	failed := false
	for i, m := range transcript {
		switch {
		case m.Type == 'Z':
			failed = m.Body[0] == 'E'
		case m.Type == 'E' && failed && m.Fields()['V'] == "ERROR":
			transcript[i].Body = nil
		}
	}
	return transcript
}

func TestNormaliserHasNothingToSpare(t *testing.T) {
	for _, n := range normal {
		t.Run(n.name, func(t *testing.T) {
			mode := n.mode
			if mode == "" {
				mode = armor.SessionMode
			}
			d := newDiffer(t, mode)
			p := []program{{blocks: []block{n.witness, {mark(1)}}}}
			if _, err := d.compare(p, ""); err != nil { // from now on the pooler has a server connection
				t.Fatal(err)
			}
			if diff, err := d.compare(p, n.name); err != nil || diff == nil {
				t.Errorf("without it: %v, %v", diff, err)
			}
			if diff, err := d.compare(p, ""); err != nil || diff != nil {
				t.Errorf("with it: %v, %v", diff, err)
			}
		})
	}
}
