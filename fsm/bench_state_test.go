package fsm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

// BenchmarkState measures what a large state costs and holds it against what it may cost:
// make bench-state prints the table. What one change costs is time of the processor, user
// and system, so that a busy machine does not change it much.
func BenchmarkState(b *testing.B) {
	applied := map[int]time.Duration{}
	for _, size := range []int{1_000, 100_000, 1_000_000} {
		l := governed(b)
		perRow := loadRevocations(l, size)
		applied[size] = l.costOfRevocation()
		row(b, fmt.Sprintf("apply one revocation, %d loaded", size), applied[size], 100*time.Microsecond)
		row(b, fmt.Sprintf("memory of a loaded revocation, of %d", size), perRow, 200)
		if size == 1_000_000 {
			l.measureSnapshot(b, size)
		}
	}
	measureBulk(b)
	row(b, "apply at 1,000,000 against 1,000, times", float64(applied[1_000_000])/float64(applied[1_000]), 3)
}

// measureBulk revokes a list that no command holds.
func measureBulk(b *testing.B) {
	l := governed(b)
	all := manySelectors(100_000)
	largest, inForce := 0, 0
	parts := armor.StagingParts(all)
	for i, part := range parts {
		l.stageUnchecked(armor.StageRevocations{Batch: batchID("a"), Part: i + 1, Selectors: part})
		largest = max(largest, len(l.entries[len(l.entries)-1]))
		inForce += l.state().Revocations.Len()
	}
	began := processor()
	l.stageUnchecked(l.activate(batchID("a"), len(parts), all))
	row(b, "100,000 selectors at once: largest command, bytes", largest, MaxEntry)
	row(b, "100,000 selectors at once: in force before the last", inForce, 0)
	row(b, "100,000 selectors at once: the activating command", processor()-began, time.Second)
	if n := l.state().Revocations.Len(); n != len(all) {
		b.Errorf("%d of %d are revoked", n, len(all))
	}
}

// row prints a line of the table, and fails when the value is more than it may be.
func row[T time.Duration | int | float64](b *testing.B, what string, value, most T) {
	b.Helper()
	verdict := "ok"
	if value > most {
		verdict = "MISSED"
		b.Errorf("%s: %v, and it may be %v", what, value, most)
	}
	fmt.Printf("| %s | %v | %v | %s |\n", what, rounded(value), most, verdict)
}

func rounded(v any) any {
	switch v := v.(type) {
	case time.Duration:
		return v.Round(v / 100)
	case float64:
		return fmt.Sprintf("%.2f", v)
	}
	return v
}

func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// numbered is a selector of a kind that is found in practice: most revocations name a
// certificate or a key.
func numbered(i int) armor.Selector {
	digest := armor.Digest(sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i))))
	if i%2 == 0 {
		return armor.Selector{Kind: armor.SelectKey, Key: digest}
	}
	issuer := armor.Digest(sha256.Sum256([]byte{byte(i % 10)}))
	return armor.Selector{Kind: armor.SelectCertificate, Certificate: armor.CertID{Issuer: issuer, Serial: fmt.Sprintf("a%x", digest[:15])}}
}

// loadRevocations puts revocations into the state as years of single commands would have,
// and returns the bytes that each takes.
func loadRevocations(l *lab, count int) int {
	before := heap()
	v := l.machine.current.Load()
	d := v.world.edit()
	for i := range count {
		d.Revision++
		d.Time = d.Time.Add(time.Second)
		put(d, armor.Revoked, armor.Revocation{
			Selector: numbered(i), Reason: armor.Superseded, Comment: fmt.Sprint("ticket CHG-", i/50),
			At: d.Time, By: "ada", Revision: d.Revision,
		})
	}
	l.index, l.now = d.Revision, d.Time
	l.machine.publish(v, &version{world: d.finish(), chain: v.chain})
	return int(heap()-before) / count
}

// costOfRevocation is the median of several rounds of revocations by signed requests.
func (l *lab) costOfRevocation() time.Duration {
	const each = 200
	var rounds []time.Duration
	for round := range 7 {
		var entries [][]byte
		for i := range each {
			r := l.request("ada", armor.Revoke{Reason: armor.Superseded, Selectors: []armor.Selector{numbered(-1 - round*each - i)}})
			entry, err := Encode(r, l.now)
			if err != nil {
				l.t.Fatal(err)
			}
			entries = append(entries, entry)
		}
		began := processor()
		for _, entry := range entries {
			l.index++
			result, err := l.machine.Apply(l.index, l.term, entry)
			if err != nil || result.Err != nil {
				l.t.Fatal(err, result.Err)
			}
		}
		rounds = append(rounds, (processor()-began)/each)
	}
	slices.Sort(rounds)
	return rounds[len(rounds)/2]
}

func (l *lab) measureSnapshot(b *testing.B, size int) {
	var snapshot bytes.Buffer
	var slowest atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // Apply goes on meanwhile
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			r := l.request("ada", armor.Revoke{Reason: armor.Superseded, Selectors: []armor.Selector{numbered(-100_000 - i)}})
			entry, err := Encode(r, l.now)
			if err != nil {
				panic(err)
			}
			l.index++
			began := time.Now()
			if _, err := l.machine.Apply(l.index, l.term, entry); err != nil {
				panic(err)
			}
			slowest.Store(max(slowest.Load(), int64(time.Since(began))))
			time.Sleep(5 * time.Millisecond)
		}
	}()
	began := time.Now()
	if _, err := l.machine.Snapshot().WriteTo(&snapshot); err != nil {
		b.Fatal(err)
	}
	took := time.Since(began)
	close(stop)
	<-stopped
	row(b, "snapshot of 1,000,000: bytes each", snapshot.Len()/size, 80)
	row(b, "snapshot of 1,000,000: time", took, 5*time.Second)
	row(b, "longest that Apply took meanwhile", time.Duration(slowest.Load()), 50*time.Millisecond)
	began = time.Now()
	if err := New().Restore(io.LimitReader(&snapshot, int64(snapshot.Len()))); err != nil {
		b.Fatal(err)
	}
	row(b, "restore of 1,000,000: time", time.Since(began), 10*time.Second)
}
