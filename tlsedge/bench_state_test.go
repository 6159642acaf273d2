package tlsedge

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/tlsedge/testca"
)

const crowd = 50_000

// BenchmarkState measures what a revision costs a node that serves many sessions: make
// bench-state prints the rows.
func BenchmarkState(b *testing.B) {
	e := crowded(b)
	share := median(b, e, 500, func(s *armor.State, i int) {
		armor.Shares.Put(s, armor.Share{Pool: "production/orders", Node: "n1", Target: i})
	})
	row(b, "a share moves", share, 20*time.Microsecond)
	row(b, "a certificate is revoked that nobody here holds", median(b, e, 500, func(s *armor.State, i int) {
		testca.Revoked(armor.Selector{Kind: armor.SelectKey, Key: numbered(-1 - i)})(s)
	}), 100*time.Microsecond)
	row(b, "a certificate is revoked that one session holds", median(b, e, 50, func(s *armor.State, i int) {
		testca.Revoked(armor.Selector{Kind: armor.SelectKey, Key: numbered(i)})(s)
	}), 200*time.Microsecond)
}

func row(b *testing.B, what string, value, most time.Duration) {
	b.Helper()
	verdict := "ok"
	if value > most {
		verdict = "MISSED"
		b.Errorf("%s: %s, and it may be %s", what, value, most)
	}
	fmt.Printf("| %d sessions: %s | %v | %v | %s |\n", crowd, what, value, most, verdict)
}

func numbered(i int) armor.Digest {
	return sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
}

// crowded is an edge that serves many sessions, each with a certificate of its own.
func crowded(b *testing.B) *Edge {
	b.Helper()
	e := unstarted(b, func(c *Config) { c.Logger = slog.New(slog.DiscardHandler) }).edge
	for i := range crowd {
		under, other := net.Pipe()
		b.Cleanup(func() { under.Close(); other.Close() })
		s := e.newSession(armor.Peer{Leaf: armor.Certificate{
			ID: armor.CertID{Issuer: armor.Digest{1}, Serial: fmt.Sprintf("a%x", i)}, Key: numbered(i),
			Identity: armor.Identity(fmt.Sprintf("spiffe://production.test/app/a%d", i%100)), NotAfter: time.Now().Add(time.Hour),
		}}, under, func(error) {})
		if err := s.HandOver(func(_ error, confirm func()) { confirm() }); err != nil {
			b.Fatal(err)
		}
		e.registry.add(s)
	}
	return e
}

// median is what enforcing one such change costs, in time of the processor.
func median(b *testing.B, e *Edge, each int, change func(*armor.State, int)) time.Duration {
	b.Helper()
	state, _ := e.cfg.Trust.Current()
	var rounds []time.Duration
	for round := range 5 {
		var spent time.Duration
		for i := range each {
			next := *state
			next.Revision++
			change(&next, round*each+i)
			began := processor()
			e.conform(state, &next)
			for _, s := range e.registry.allEnding() {
				e.registry.remove(s)
			}
			spent += processor() - began
			state = &next
		}
		rounds = append(rounds, spent/time.Duration(each))
	}
	slices.Sort(rounds)
	return rounds[len(rounds)/2]
}

func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
