package cluster

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/fsm"
)

const labEra = "fedcba98765432100123456789abcdef"

// ashore runs a test with a lab whose nodes have data directories.
func ashore(t *testing.T, nodes int, test func(*testing.T, *lab)) {
	t.Helper()
	folder := t.TempDir()
	bubble(t, func(l *lab) { l.folder = folder }, nodes, test)
}

func (l *lab) recovering(id armor.NodeID) RecoverConfig {
	return RecoverConfig{
		DataDir: l.dir(id), Cluster: labCluster, EraID: labEra, Now: time.Now(), Logger: discardLog(),
		Member: armor.Member{
			ID: id, Certificate: l.certificate(string(id), labName.NodeIdentity(id)),
			PeerAddress: string(id) + ":7432", ClientAddress: string(id) + ":6432", OpsAddress: string(id) + ":9432",
		},
	}
}

func (l *lab) openRecovery(c RecoverConfig) *Recovery {
	l.t.Helper()
	r, err := OpenRecovery(c)
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

// recovered has a stopped node go on alone, and starts it.
func (l *lab) recovered(id armor.NodeID) *labNode {
	l.t.Helper()
	r := l.openRecovery(l.recovering(id))
	kept, err := r.Commit()
	if err := errors.Join(err, r.Close()); err != nil {
		l.t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(kept, logName)); err != nil {
		l.t.Errorf("the old log is not kept: %v", err)
	}
	return l.start(id, nil, nil)
}

func (l *lab) stopEverybody() {
	l.net.Heal()
	for _, n := range l.all() {
		l.stop(n)
	}
	l.net.Heal()
}

// undecided appends a command to a stopped node's log, as a leader that nobody answered would.
func (l *lab) undecided(id armor.NodeID, c armor.Command) {
	l.t.Helper()
	s, err := openStores(l.dir(id), discardLog())
	if err != nil {
		l.t.Fatal(err)
	}
	defer s.close()
	last, err := s.log.LastIndex()
	if err != nil {
		l.t.Fatal(err)
	}
	data, err := fsm.Encode(l.request(c), time.Now())
	if err != nil {
		l.t.Fatal(err)
	}
	entry := &raft.Log{Index: last + 1, Term: number(s.stable, currentTerm), Type: raft.LogCommand, Data: data}
	sealed([]*raft.Log{entry})
	if err := s.log.StoreLog(entry); err != nil {
		l.t.Fatal(err)
	}
}

// TestOneOfThreeGoesOnAlone, and two join again under their old names. One that has stayed in the
// old era has no part in the new one.
func TestOneOfThreeGoesOnAlone(t *testing.T) {
	ashore(t, 3, func(t *testing.T, l *lab) {
		l.do(l.revocation("a"))
		l.eventually("all know", func() bool { return l.revokedOn(l.get("n1"), "a") && l.revokedOn(l.get("n3"), "a") })
		l.stopEverybody()
		l.undecided("n1", l.revocation("b"))
		r := l.openRecovery(l.recovering("n1"))
		if len(r.Unsure) != 1 || r.Unsure[0].Index != r.Index || r.Committed >= r.Index ||
			r.After.Revision != r.Index+1 || r.After.Cluster.Era.Number != 2 {
			t.Errorf("unsure %v, committed %d of %d, then %d", r.Unsure, r.Committed, r.Index, r.After.Revision)
		}
		r.Close()
		n1 := l.recovered("n1")
		l.eventually("it leads", func() bool { return n1.Status().Role == "leader" })
		if !l.revokedOn(n1, "a") || !l.revokedOn(n1, "b") || n1.Status().Term <= r.Term+eraTerms {
			t.Errorf("revoked %v, %v; term %d after %d", l.revokedOn(n1, "a"), l.revokedOn(n1, "b"), n1.Status().Term, r.Term)
		}
		l.eventually("it serves", func() bool { return n1.AdmitNew("prod") == nil })

		old := l.start("n3", nil, nil) // it was not stopped for good
		l.eventually("the name is free", func() bool {
			state, _ := n1.Current()
			return !state.Tombstones.Has("n2")
		})
		if err := os.RemoveAll(l.dir("n2")); err != nil {
			t.Fatal(err)
		}
		l.inviteWith("n2", true, l.certificate("the new n2", labName.NodeIdentity("n2")))
		n2 := l.start("n2", nil, nil)
		l.eventually("the new one votes and serves", func() bool {
			return n1.votes(n1.raft.Load(), "n2") && n2.AdmitNew("prod") == nil && l.revokedOn(n2, "b")
		})
		time.Sleep(time.Minute)
		if old.AdmitNew("prod") == nil || old.Status().Role == "leader" || n1.votes(n1.raft.Load(), "n3") {
			t.Errorf("the node of the old era: %+v", old.Status())
		}
		if state, _ := old.Current(); !state.Cluster.Era.IsFirst() || old.failed.cause() != nil {
			t.Errorf("it is in era %s: %v", state.Cluster.Era, old.failed.cause())
		}
		if n1.failed.cause() != nil || n2.failed.cause() != nil || n2.AdmitNew("prod") != nil {
			t.Errorf("the new era: %v, %v", n1.failed.cause(), n2.failed.cause())
		}
		l.stop(l.get("n1"))
		l.start("n1", nil, nil) // the era's first snapshot is the state like any other
		l.do(l.revocation("c"))
	})
}

// A snapshot of another era is refused by a node that has a state, whoever vouches for it.
func TestNoNodeGoesFromOneEraToAnother(t *testing.T) {
	ashore(t, 1, func(t *testing.T, l *lab) {
		n := l.get("n1")
		next, err := n.machine.Snapshot().Refound(fsm.Refounding{
			EraID: labEra, Revision: 1000, Term: 9, Now: time.Now(), Member: armor.Member{
				ID: "n2", PeerAddress: "n2:7432", Certificate: l.certificate("n2", labName.NodeIdentity("n2")),
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		m := fsm.New()
		var b bytes.Buffer
		if _, err := next.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		if err := m.Restore(&b); err != nil {
			t.Fatal(err)
		}
		_, err = n.judgeSnapshot(bytes.NewReader(l.snapshotOf(m)), 1000)
		if !errors.Is(err, armor.ErrDenied) || !strings.Contains(err.Error(), "era 2") {
			t.Errorf("judged: %v", err)
		}
	})
}

// An interrupted recovery is as if it had not been, or is finished.
func TestInterruptedRecovery(t *testing.T) {
	era := func(l *lab) uint32 {
		r := l.openRecovery(l.recovering("n1"))
		defer r.Close()
		return r.Before.Cluster.Era.Number
	}
	for name, c := range map[string]struct {
		interrupt func(*lab, *Recovery) error
		era       uint32
	}{
		"before the new era is whole": {func(l *lab, r *Recovery) error {
			folder := filepath.Join(l.dir("n1"), recoveringFolder)
			s, err := openRaft(folder, openLog, discardLog())
			if err != nil {
				return err
			}
			return errors.Join(s.stable.SetUint64([]byte(currentTerm), 1<<40), s.close())
		}, 0},
		"before the old folder is moved": {func(l *lab, r *Recovery) error {
			return makeEra(l.dir("n1"), "n1", r.next, r.nextEnd, discardLog())
		}, 0},
		"when the old folder has been moved": {func(l *lab, r *Recovery) error {
			return errors.Join(makeEra(l.dir("n1"), "n1", r.next, r.nextEnd, discardLog()),
				os.Rename(filepath.Join(l.dir("n1"), raftFolder), filepath.Join(l.dir("n1"), formerPrefix+"x")))
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			ashore(t, 2, func(t *testing.T, l *lab) {
				l.do(l.revocation("a"))
				l.stopEverybody()
				r := l.openRecovery(l.recovering("n1"))
				if err := errors.Join(c.interrupt(l, r), r.Close()); err != nil {
					t.Fatal(err)
				}
				n1 := l.start("n1", nil, nil)
				l.eventually("it has a state", func() bool { return n1.machine.LastCommand() > 0 })
				l.stop(n1)
				if got := era(l); got != c.era {
					t.Errorf("era %d, not %d", got, c.era)
				}
				n1 = l.recovered("n1")
				l.eventually("it serves", func() bool { return n1.AdmitNew("prod") == nil && l.revokedOn(n1, "a") })
			})
		})
	}
}

// The raft folder of an era that is over ends the node: who serves from it has forgotten.
func TestFolderOfAnOlderEraEndsTheNode(t *testing.T) {
	ashore(t, 1, func(t *testing.T, l *lab) {
		l.stopEverybody()
		r := l.openRecovery(l.recovering("n1"))
		kept, err := r.Commit()
		if err := errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		n1 := l.start("n1", nil, nil)
		l.eventually("it serves", func() bool { return n1.AdmitNew("prod") == nil })
		l.stop(n1)
		own := filepath.Join(l.dir("n1"), raftFolder)
		if err := errors.Join(os.Rename(own, own+".aside"), os.Rename(kept, own)); err != nil {
			t.Fatal(err)
		}
		n1 = l.start("n1", nil, nil)
		l.eventually("it ends", func() bool { return n1.failed.cause() != nil })
		<-n1.done
		if !errors.Is(n1.err, ErrForgot) {
			t.Errorf("ended by %v", n1.err)
		}
		if _, err := OpenRecovery(l.recovering("n1")); !errors.Is(err, ErrForgot) {
			t.Errorf("a recovery from it: %v", err)
		}
	})
}

func TestRecoveryIsRefused(t *testing.T) {
	folder := t.TempDir()
	bubble(t, func(l *lab) { replaying(l); l.folder = folder }, 2, func(t *testing.T, l *lab) {
		refused := func(what string, c RecoverConfig, want error, words string) {
			t.Helper()
			if r, err := OpenRecovery(c); !errors.Is(err, want) || !strings.Contains(err.Error(), words) {
				if err == nil {
					r.Close()
				}
				t.Errorf("%s: %v", what, err)
			}
		}
		if r, err := OpenRecovery(l.recovering("n1")); err == nil || !strings.Contains(err.Error(), "another process runs this node") {
			t.Errorf("while the node runs: %v, %v", r, err)
		}
		l.stopEverybody()
		c := l.recovering("n1")
		c.Member.Certificate = l.certificate("another n1", labName.NodeIdentity("n1"))
		refused("with another key", c, armor.ErrDenied, "was replaced")
		c = l.recovering("n1")
		c.Cluster = "another"
		refused("of another cluster", c, armor.ErrConflict, "belongs to cluster")
		c = l.recovering("n1")
		c.Member.ID = "n2"
		refused("as another node", c, armor.ErrConflict, "belongs to node")
		c = l.recovering("n1")
		c.DataDir = t.TempDir()
		refused("an empty directory", c, armor.ErrNotFound, "no member of a cluster has lived")
		c = l.recovering("n1")
		c.MendTime = true
		refused("where time is right", c, armor.ErrConflict, "nothing to mend")

		log := filepath.Join(l.dir("n2"), raftFolder, logName)
		whole, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		key := l.digest("key", "n2")
		damaged := key
		damaged[3] ^= 1
		if !bytes.Contains(whole, key[:]) {
			t.Fatal("the log does not hold what is to be damaged")
		}
		if err := os.WriteFile(log, bytes.ReplaceAll(whole, key[:], damaged[:]), 0o600); err != nil {
			t.Fatal(err)
		}
		refused("a damaged log", l.recovering("n2"), ErrDamaged, "checksum")
		if err := os.RemoveAll(filepath.Join(l.dir("n2"), raftFolder)); err != nil {
			t.Fatal(err)
		}
		refused("no log", l.recovering("n2"), ErrForgot, logName)
	})
}

// A node that was removed does not take the cluster with it.
func TestRemovedNodeDoesNotGoOnAlone(t *testing.T) {
	ashore(t, 3, func(t *testing.T, l *lab) {
		gone := l.follower()
		l.do(armor.RemoveMember{Node: gone.cfg.Node})
		l.eventually("it knows", func() bool {
			state, _ := gone.Current()
			return state.Tombstones.Has(string(gone.cfg.Node))
		})
		l.stop(gone)
		_, err := OpenRecovery(l.recovering(gone.cfg.Node))
		if !errors.Is(err, armor.ErrDenied) || !strings.Contains(err.Error(), "was removed") {
			t.Errorf("got %v", err)
		}
	})
}

func TestRecoveryMendsLogTime(t *testing.T) {
	ashore(t, 1, func(t *testing.T, l *lab) {
		n := l.get("n1")
		n.clock.wallOff.Store(int64(1000 * time.Hour)) // a cluster of one goes by its only clock
		l.eventually("log time is wrong", func() bool {
			n.ProposeOwn(t.Context(), armor.PruneExpired{At: time.Now()})
			state, _ := n.Current()
			return state.Time.After(time.Now().Add(900 * time.Hour))
		})
		l.stopEverybody()
		c := l.recovering("n1")
		c.MendTime = true
		r := l.openRecovery(c)
		_, err := r.Commit()
		if err := errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		n = l.start("n1", nil, nil)
		l.do(l.revocation("a"))
		if state, _ := n.Current(); state.Time.After(time.Now().Add(armor.RequestWindow)) {
			t.Errorf("log time is %s", state.Time)
		}
	})
}
