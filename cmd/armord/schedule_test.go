package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armord/config"
	"github.com/armordb/armordb/fsm"
	"github.com/armordb/armordb/fsm/saved"
)

// calendar is a schedule in a bubble, over a machine that the test moves.
type calendar struct {
	*schedule
	t       *testing.T
	machine *fsm.Machine
	key     crypto.Signer
	index   uint64
	stop    func()

	mu     sync.Mutex   // guards below, between the test and the schedule
	said   bytes.Buffer // the schedule's log
	broken error        // what writing comes to
	left   uint64       // on the disk
}

// set changes what the schedule meets.
func (c *calendar) set(broken error, left uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken, c.left = broken, left
}

func (c *calendar) meets() (left uint64, broken error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left, c.broken
}

// Write takes a line of the schedule's log (io.Writer).
func (c *calendar) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.Write(b)
}

// lines are what the schedule has logged.
func (c *calendar) lines() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.String()
}

const plenty = 1 << 40 // bytes

const calendarCluster = "0123456789abcdef0123456789abcdef"

func startCalendar(t *testing.T, cfg config.Snapshots) *calendar {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	c := &calendar{t: t, machine: fsm.New(), key: key, left: plenty}
	c.found()
	c.restart(cfg)
	return c
}

// restart is another life of the process.
func (c *calendar) restart(cfg config.Snapshots) {
	if c.stop != nil {
		c.stop()
	}
	c.schedule = &schedule{
		cfg: cfg, folder: saved.Folder{Dir: cfg.Directory, Cluster: calendarCluster, Node: "n1"}, current: c.machine.Snapshot,
		free: func(string) (uint64, bool) {
			left, _ := c.meets()
			return left, true
		},
		log: slog.New(slog.NewTextHandler(c, nil)),
		write: func(w io.Writer, s fsm.Snapshot) error {
			by := saved.Signer{Kind: pki.Node, Name: "n1", Chain: [][]byte{[]byte("DER")}, Key: c.key}
			_, broken := c.meets()
			return errors.Join(saved.Write(w, s, saved.Origin{Node: "n1", Build: "test", Term: 1, At: time.Now()}, by), broken)
		},
	}
	ctx, cancel := context.WithCancel(c.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.run(ctx); err != nil {
			c.t.Error("it ended the node:", err)
		}
	}()
	c.stop = func() { cancel(); <-done }
}

func (c *calendar) found() {
	public, err := c.key.Public().(*ecdsa.PublicKey).Bytes()
	if err != nil {
		c.t.Fatal(err)
	}
	cluster := armor.Cluster{ID: calendarCluster, Name: "Acme", PeerCA: []byte("CA"), CreatedAt: time.Now()}
	certificate := func(id armor.Identity, key armor.Digest) armor.Certificate {
		return armor.Certificate{
			ID: armor.CertID{Issuer: sha256.Sum256([]byte("ca")), Serial: "1"}, Fingerprint: sha256.Sum256([]byte(id)), Key: key, Identity: id,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		}
	}
	spki, err := pki.NewCSR(c.key, "")
	if err != nil {
		c.t.Fatal(err)
	}
	csr, err := pki.ParseCSR(spki)
	if err != nil {
		c.t.Fatal(err)
	}
	c.apply("node/n1", armor.Bootstrap{
		Cluster: cluster,
		Member:  armor.Member{ID: "n1", Certificate: certificate(cluster.NodeIdentity("n1"), armor.Digest{1}), PeerAddress: "n1:1", Voter: true},
		Operator: armor.Operator{
			Name: "ada", Certificate: certificate(cluster.OperatorIdentity("ada"), sha256.Sum256(csr.RawSubjectPublicKeyInfo)),
			PublicKey: public, Roles: armor.OperatorRoles(),
		},
	})
}

// change makes an environment.
func (c *calendar) change(environment string) {
	c.apply("ada", armor.PutEnvironment{Environment: armor.Environment{Name: environment}})
}

// idle is a revision that changes nothing worth saving.
func (c *calendar) idle() { c.apply("node/n1", armor.PruneExpired{}) }

func (c *calendar) apply(principal string, command armor.Command) {
	c.t.Helper()
	c.index++
	r := armor.Request{
		ID: armor.RequestID(fmt.Sprintf("%032x", c.index)), Principal: principal, Expires: time.Now().Add(time.Minute), Command: command,
	}
	if principal == "ada" {
		var err error
		digest := r.SigningDigest(calendarCluster)
		if r.Signature, err = c.key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
			c.t.Fatal(err)
		}
	}
	entry, err := fsm.Encode(r, time.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	result, err := c.machine.Apply(c.index, 1, entry)
	if err != nil || result.Err != nil {
		c.t.Fatal(err, result.Err)
	}
}

// revisions are those of the files that are there, each of which must be whole.
func (c *calendar) revisions() (all []uint64) {
	c.t.Helper()
	synctest.Wait()
	files, err := c.folder.List()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, f := range files {
		if err := whole(f.Path); err != nil {
			c.t.Error(err)
		}
		all = append(all, f.Revision)
	}
	return all
}

func (c *calendar) want(what string, revisions ...uint64) {
	c.t.Helper()
	if got := c.revisions(); fmt.Sprint(got) != fmt.Sprint(revisions) {
		c.t.Errorf("%s: files of revisions %v, want %v\n%s", what, got, revisions, c.lines())
	}
}

func inCalendar(t *testing.T, keep int, test func(c *calendar, cfg config.Snapshots)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := config.Snapshots{Directory: filepath.Join(t.TempDir(), "saved"), Every: 6 * time.Hour, Keep: keep}
		c := startCalendar(t, cfg)
		defer func() { c.stop() }()
		test(c, cfg)
	})
}

func TestAStateIsSavedOnScheduleWhenItHasChanged(t *testing.T) {
	inCalendar(t, 10, func(c *calendar, _ config.Snapshots) {
		c.want("at once")
		time.Sleep(firstSave + time.Second)
		c.want("soon after the start", 1)
		c.idle()
		time.Sleep(12 * time.Hour)
		c.want("nothing worth it has changed", 1)
		if age, known := c.age(time.Now()); !known || age > 6*time.Hour {
			t.Errorf("the file has all that there is, and its age is %s, %v", age, known)
		}
		c.change("dev")
		c.want("not before it is due", 1)
		time.Sleep(6 * time.Hour)
		c.want("something has changed", 1, 3)
	})
}

func TestARestartGoesOnWithTheSchedule(t *testing.T) {
	inCalendar(t, 10, func(c *calendar, cfg config.Snapshots) {
		time.Sleep(firstSave + time.Second)
		c.change("dev")
		time.Sleep(time.Hour)
		left := filepath.Join(cfg.Directory, ".armor-01234567-00000000000000000002-20260101T000000Z-n1.snapshot-123")
		others := filepath.Join(cfg.Directory, ".armor-01234567-00000000000000000002-20260101T000000Z-n2.snapshot-123")
		for _, path := range []string{left, others} {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c.restart(cfg)
		time.Sleep(2 * firstSave)
		c.want("an hour after the last one", 1)
		if _, err := os.Stat(left); err == nil {
			t.Error("what a crash left is still there")
		}
		if _, err := os.Stat(others); err != nil {
			t.Error("what another node is writing was removed")
		}
		time.Sleep(5 * time.Hour)
		c.want("six hours after it", 1, 2)
	})
}

// The newest ones stay, and whatever is not this node's.
func TestOlderFilesGoOnceANewerOneIsWhole(t *testing.T) {
	inCalendar(t, 2, func(c *calendar, cfg config.Snapshots) {
		time.Sleep(firstSave + time.Second)
		foreign := []string{
			"notes.txt", "armor-01234567-00000000000000000000-20200101T000000Z-n2.snapshot",
			"armor-fedcba98-00000000000000000000-20200101T000000Z-n1.snapshot", "armor-01234567-0-20200101T000000Z-n1.snapshot",
		}
		for _, name := range foreign {
			if err := os.WriteFile(filepath.Join(cfg.Directory, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 3 {
			c.change(fmt.Sprint("e", i))
			time.Sleep(6 * time.Hour)
		}
		c.want("two are kept", 3, 4)
		c.set(errors.New("no space left on device"), plenty)
		c.change("e9")
		time.Sleep(24 * time.Hour)
		c.want("one that cannot be written displaces none", 3, 4)
		for _, name := range foreign {
			if _, err := os.Stat(filepath.Join(cfg.Directory, name)); err != nil {
				t.Error("a file that is not this node's was removed:", err)
			}
		}
		if age, _ := c.age(time.Now()); age < 24*time.Hour || c.failed.Load() < 100 {
			t.Errorf("after a day of failures the age is %s, and %d failures are counted", age, c.failed.Load())
		}
		c.set(nil, plenty)
		time.Sleep(saveAgain)
		c.want("it is tried again before the next is due", 4, 5)
	})
}

func TestANewestFileThatIsDamagedIsMadeAnew(t *testing.T) {
	inCalendar(t, 1, func(c *calendar, _ config.Snapshots) {
		time.Sleep(firstSave + time.Second)
		files, err := c.folder.List()
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		content, err := os.ReadFile(files[0].Path)
		if err != nil {
			t.Fatal(err)
		}
		content[len(content)/2] ^= 1
		if err := os.WriteFile(files[0].Path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Hour)
		c.want("made anew, and the damaged one gone", 1)
		if !strings.Contains(c.lines(), "of no use") {
			t.Errorf("nobody was told: %s", c.lines())
		}
	})
}

func TestTheLogsDiskIsNotFilled(t *testing.T) {
	inCalendar(t, 1, func(c *calendar, _ config.Snapshots) {
		c.set(nil, spareSpace)
		time.Sleep(firstSave + time.Second)
		c.change("dev")
		c.want("there is room", 1)
		time.Sleep(6 * time.Hour)
		c.want("there is none for a second", 1)
		if !strings.Contains(c.lines(), "256 MB left") {
			t.Errorf("nobody was told: %s", c.lines())
		}
	})
}

func TestWithoutAScheduleNothingIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCalendar(t, config.Snapshots{Directory: t.TempDir(), Keep: 1})
		defer c.stop()
		time.Sleep(1000 * time.Hour)
		c.want("off")
	})
}

func TestMetricsTellTheAgeOfTheNewestSavedState(t *testing.T) {
	inCalendar(t, 1, func(c *calendar, _ config.Snapshots) {
		m := newMetrics(func() armor.NodeStatus { return armor.NodeStatus{} })
		m.watchSchedule(c.schedule)
		scrape := func(want ...string) {
			t.Helper()
			synctest.Wait()
			page := httptest.NewRecorder()
			m.handler().ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
			for _, line := range want {
				if !strings.Contains(page.Body.String(), line+"\n") {
					t.Errorf("no line %q", line)
				}
			}
		}
		scrape("armor_snapshot_age_seconds -1", `armor_snapshots_total{result="failed"} 0`)
		time.Sleep(firstSave + 30*time.Second)
		scrape("armor_snapshot_age_seconds 30", `armor_snapshots_total{result="saved"} 1`, fmt.Sprint("armor_snapshot_bytes ", c.bytes.Load()))
	})
}
