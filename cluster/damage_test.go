package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
)

func entryOf(index uint64) *raft.Log {
	data := bytes.Repeat(fmt.Append(nil, index, " "), 20)
	return &raft.Log{Index: index, Term: 1 + index/7, Type: raft.LogCommand, Data: data, AppendedAt: time.Unix(int64(index), 0)}
}

func TestSealCoversAllThatAnEntrySays(t *testing.T) {
	for name, change := range map[string]func(*raft.Log){
		"type":  func(e *raft.Log) { e.Type = raft.LogNoop },
		"index": func(e *raft.Log) { e.Index++ },
		"term":  func(e *raft.Log) { e.Term ^= 1 },
		"data":  func(e *raft.Log) { e.Data[3] ^= 4 },
		"end":   func(e *raft.Log) { e.Data = e.Data[:len(e.Data)-1] },
		"seal":  func(e *raft.Log) { e.Extensions[0] ^= 2 },
	} {
		e := entryOf(9)
		if sealed([]*raft.Log{e}); checkSeal(e) != nil {
			t.Fatal("the seal of an entry does not hold")
		}
		if change(e); checkSeal(e) == nil {
			t.Errorf("%s: a change is not noticed", name)
		}
	}
	if checkSeal(entryOf(9)) != nil {
		t.Error("an entry of an earlier build is refused")
	}
}

// spoil has one bit of a revocation's entry flipped in a follower's log while it is down,
// and returns the node that was started with it.
func spoil(t *testing.T, mistake func(*mistakes)) (err error, knows bool) {
	t.Helper()
	bubble(t, func(l *lab) { replaying(l); mistake(l.mistakes) }, 3, func(t *testing.T, l *lab) {
		n := l.follower()
		l.do(l.revocation("a"))
		l.eventually("it knows", func() bool { return l.revokedOn(n, "a") })
		l.stop(n)
		l.alter(n.disk, false)
		l.net.Heal()
		again := l.start(n.cfg.Node, n.disk, nil)
		select {
		case <-again.done:
			err = again.err
		case <-time.After(20 * time.Second):
			knows = l.revokedOn(again, "a")
		}
	})
	return err, knows
}

// alter flips a bit of a revocation in a log; whoever does it on purpose reseals it.
func (l *lab) alter(disk *stores, reseal bool) {
	l.t.Helper()
	digest := l.digest("client key", "a")
	last, _ := disk.log.LastIndex()
	for i := range last {
		var e raft.Log
		if disk.log.GetLog(i+1, &e) != nil {
			continue
		}
		at := bytes.Index(e.Data, digest[:])
		if at < 0 {
			continue
		}
		e.Data[at+5] ^= 1
		if reseal {
			sealed([]*raft.Log{&e})
		}
		if err := disk.log.StoreLog(&e); err != nil {
			l.t.Fatal(err)
		}
	}
}

func TestDamagedLogEntryEndsTheNode(t *testing.T) {
	err, _ := spoil(t, func(*mistakes) {})
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "checksum") {
		t.Fatalf("ended by %v", err)
	}
}

func TestNodeThatTrustsItsDiskForgetsARevocation(t *testing.T) {
	err, knows := spoil(t, func(m *mistakes) { m.trustDisk, m.trustMarks = true, true })
	if err != nil || knows {
		t.Fatalf("the damage does nothing: %v, knows %v", err, knows)
	}
}

func TestEntryThatComesDamagedIsRefused(t *testing.T) {
	e := entryOf(4)
	sealed([]*raft.Log{e})
	e.Data[0] ^= 1
	if err := checkEntries(&raft.AppendEntriesRequest{Entries: []*raft.Log{entryOf(3), e}}); !errors.Is(err, armor.ErrInvalid) {
		t.Fatalf("got %v", err)
	}
}

// bareNode is as much of a node as a latch needs.
func bareNode() *Node {
	n := &Node{failed: newFailure(), cfg: Config{mistakes: &mistakes{}}}
	n.adapter = newAdapter(n.cfg, n.failed)
	return n
}

// logFile writes a log of n entries and returns the folder of its stores.
func logFile(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	s, err := openStores(dir, discardLog())
	if err != nil {
		t.Fatal(err)
	}
	l := newLatch(s, bareNode())
	for i := range n {
		if err := l.StoreLog(entryOf(uint64(i + 1))); err != nil {
			t.Fatal(err)
		}
	}
	l.SetUint64([]byte("CurrentTerm"), 7)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// readBack opens a log and reads all of it, as Raft does when it starts: it returns why
// the node ended, or that what it read is not what was written.
func readBack(dir string, n int) (err error) {
	s, err := openStores(dir, discardLog())
	if err != nil {
		return err
	}
	bare := bareNode()
	failed := bare.failed
	l := newLatch(s, bare)
	wrong := make(chan error, 1)
	go func() {
		defer close(wrong)
		if last, err := l.LastIndex(); err != nil || last != uint64(n) {
			wrong <- fmt.Errorf("the last entry is %d: %v", last, err)
			return
		}
		for i := range n {
			var e raft.Log
			want := entryOf(uint64(i + 1))
			if err := l.GetLog(want.Index, &e); err != nil || e.Term != want.Term || e.Type != want.Type || !bytes.Equal(e.Data, want.Data) {
				wrong <- fmt.Errorf("entry %d is %+v: %v", want.Index, e, err)
				return
			}
		}
	}()
	err = <-wrong
	if cause := failed.cause(); cause != nil {
		return cause
	}
	return errors.Join(err, s.close())
}

// A file in which any one bit was flipped is as good as before, or ends the node in words
// about damage. One flip is known to hide: in what says how many entries the last page
// has, the newest of which are then not there; the leader sends those again.
func TestFlippedBitInTheLogIsNoticedOrHarmless(t *testing.T) {
	const entries, tries = 60, 400
	dir := logFile(t, entries)
	path := filepath.Join(dir, "raft", logName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	chance := rand.New(rand.NewPCG(1, 2))
	noticed := 0
	for range tries {
		at, bit := chance.IntN(len(good)), byte(1)<<chance.IntN(8)
		bad := slices.Clone(good)
		bad[at] ^= bit
		// A library that panicked may still hold the file before.
		if err := errors.Join(os.Remove(path), os.WriteFile(path, bad, 0o600)); err != nil {
			t.Fatal(err)
		}
		err := readBack(dir, entries)
		switch {
		case errors.Is(err, ErrDamaged):
			noticed++
			if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "docs/operate.md") {
				t.Fatalf("byte %d, bit %x: the words do not help: %v", at, bit, err)
			}
		case err != nil && !strings.Contains(err.Error(), "the last entry is"):
			t.Fatalf("byte %d, bit %x: %v", at, bit, err)
		}
	}
	if noticed < tries/20 {
		t.Fatalf("%d of %d flips were noticed", noticed, tries)
	}
}

func TestTornLogFileEndsInWordsAboutDamage(t *testing.T) {
	dir := logFile(t, 60)
	path := filepath.Join(dir, "raft", logName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 100, 4096, 8192, 12288, len(good) / 2} {
		if err := errors.Join(os.Remove(path), os.WriteFile(path, good[:size], 0o600)); err != nil {
			t.Fatal(err)
		}
		if err := readBack(dir, 60); !errors.Is(err, ErrDamaged) {
			t.Errorf("%d of %d bytes: %v", size, len(good), err)
		}
	}
}

func TestDamagedMetaDataOfASnapshotIsNotBelieved(t *testing.T) {
	dir := t.TempDir()
	s, err := openStores(dir, discardLog())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	sink, err := s.snapshots.Create(1, 4321, 7, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write([]byte("a state")); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	if all, err := s.snapshots.List(); err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	meta := filepath.Join(dir, "raft", "snapshots", sink.ID(), "meta.json")
	text, err := os.ReadFile(meta)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(meta, bytes.Replace(text, []byte("4321"), []byte("4320"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, err := s.snapshots.List(); !errors.Is(err, ErrDamaged) {
		t.Fatalf("%v, %v", all, err)
	}
	if _, _, err := s.snapshots.Open(sink.ID()); !errors.Is(err, ErrDamaged) {
		t.Fatalf("opened: %v", err)
	}
}

func TestCommittedEntryIsNotTakenBack(t *testing.T) {
	for name, prepare := range map[string]func(*Node, *latch){
		"in this life": func(n *Node, _ *latch) { n.adapter.commits(entryID{5, 1}) },
		"in the life before": func(_ *Node, l *latch) {
			l.SetUint64(keyCommitted, 5)
			if err := l.recall(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		tail := func(first uint64, mistake bool) error {
			log := raft.NewInmemStore()
			n := bareNode()
			n.cfg.mistakes.takeBack = mistake
			l := newLatch(&stores{log: log, stable: log}, n)
			for i := range uint64(8) {
				if err := l.StoreLog(entryOf(i + 1)); err != nil {
					t.Fatal(err)
				}
			}
			prepare(n, l)
			return errors.Join(l.DeleteRange(first, 8), n.failed.cause())
		}
		if err := tail(6, false); err != nil {
			t.Errorf("%s: an entry that was not committed stays: %v", name, err)
		}
		if err := tail(5, false); !errors.Is(err, ErrDiverged) {
			t.Errorf("%s: a committed entry is taken back: %v", name, err)
		}
		if err := tail(5, true); err != nil {
			t.Errorf("%s: the mutant does not take it back: %v", name, err)
		}
	}
}

func TestEntriesBehindASnapshotAreDeleted(t *testing.T) {
	log := raft.NewInmemStore()
	n := bareNode()
	l := newLatch(&stores{log: log, stable: log}, n)
	for i := range uint64(8) {
		l.StoreLog(entryOf(i + 1))
	}
	n.adapter.commits(entryID{8, 2})
	if err := errors.Join(l.DeleteRange(1, 6), n.failed.cause()); err != nil {
		t.Fatal(err)
	}
}

func TestNodeRemembersWhatItSawCommittedAcrossARestart(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, l *lab) {
		n := l.follower()
		result := l.do(l.revocation("a"))
		time.Sleep(2 * commitNoted)
		l.crash(n)
		l.net.Heal()
		again := l.start(n.cfg.Node, n.disk, nil)
		<-again.started
		if got := again.latch.recalled.Load(); got < result.Revision {
			t.Errorf("it remembers entry %d, not %d", got, result.Revision)
		}
	})
}
