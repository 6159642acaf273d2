package backend

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/armordb/armordb/armor"
)

// Register is the file in which a node writes down which backends of PostgreSQL it has, so
// that a life that was killed leaves word of them to the next one: PostgreSQL may go on with
// what they run for as long as it takes. A line is written when a connection is dialled, when
// it has logged in, and when its end was read; no login waits for the disk. What a killed
// process has written the kernel still has; what a machine has written in its last second
// before it lost its power may be lost.
//
// All methods may be called from any goroutine, and of a nil Register, which writes nothing.
type Register struct {
	path   string
	log    *slog.Logger
	former []Entry // immutable: what the former lives have left

	mu    sync.Mutex // guards below and the file, and is held for nothing but writing it
	file  *os.File
	size  int
	last  uint64           // number given to an entry
	open  map[uint64]Entry // what the file says
	dirty bool             // something was written that may not be on the disk yet
	full  bool             // the last line could not be written
}

// Entry is one backend, or a login that may have led to one.
type Entry struct {
	ID       uint64 `json:"id"`
	Pool     string `json:"pool,omitempty"` // its key
	Host     string `json:"host,omitempty"` // as the database names it
	Network  string `json:"network,omitempty"`
	Address  string `json:"address,omitempty"` // that was dialled
	Database string `json:"database,omitempty"`
	Role     string `json:"role,omitempty"`
	Port     int    `json:"port,omitempty"`   // our own; 0: it has none
	PID      uint32 `json:"pid,omitempty"`    // 0: it had not logged in
	Secret   uint32 `json:"secret,omitempty"` // for a cancel request
	Gone     bool   `json:"gone,omitempty"`   // a line that strikes the entry out

	Since time.Time `json:"-"` // nothing can be it that has begun later
}

const (
	maxRegister     = 64 << 20  // bytes that are read
	maxRegisterLine = 4 << 10   // an entry has six words of configuration, each of 255 bytes at most
	maxFormer       = 100_000   // entries that are kept of former lives
	compactFrom     = 256 << 10 // bytes, from which on a file that is half waste is written anew
	syncEvery       = time.Second
)

// OpenRegister reads what former lives have left in the file and goes on writing there. The
// caller is the only one that has it open.
func OpenRegister(path string, log *slog.Logger) (*Register, error) {
	r := &Register{path: path, log: log, open: map[uint64]Entry{}}
	if err := r.read(); err != nil {
		return nil, fmt.Errorf("the register of server connections %s: %w", path, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.compactLocked(); err != nil {
		return nil, fmt.Errorf("write the register of server connections: %w", err)
	}
	return r, nil
}

func (r *Register) read() error {
	f, err := os.Open(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	open, damaged, err := parseRegister(f)
	if err != nil {
		return err
	}
	if damaged > 0 {
		r.log.Warn("lines of the register of server connections are damaged and left out", armor.KeyAddress, r.path, armor.KeyCount, damaged)
	}
	for _, e := range open {
		r.open[e.ID] = e
		r.last = max(r.last, e.ID)
	}
	for i := range open {
		open[i].Since = time.Now()
	}
	r.former = open
	return nil
}

// parseRegister returns the entries that are not struck out, in the order of their numbers,
// and how many lines made no sense.
func parseRegister(from io.Reader) (left []Entry, damaged int, err error) {
	open := map[uint64]Entry{}
	lines := bufio.NewReaderSize(io.LimitReader(from, maxRegister), maxRegisterLine)
	for {
		line, err := lines.ReadSlice('\n')
		whole := err == nil
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue // its rest makes no sense either
		case err != nil && !errors.Is(err, io.EOF):
			return nil, damaged, err
		}
		if len(bytes.TrimSpace(line)) > 0 && !enter(open, line) {
			damaged++
		}
		if !whole {
			break
		}
	}
	for _, e := range open {
		left = append(left, e)
	}
	slices.SortFunc(left, func(a, b Entry) int { return int(int64(a.ID) - int64(b.ID)) })
	return left, damaged, nil
}

// enter does what one line says, and reports whether that made sense.
func enter(open map[uint64]Entry, line []byte) bool {
	var e Entry
	if err := json.Unmarshal(line, &e); err != nil || e.ID == 0 || e.ID >= 1<<62 {
		return false
	}
	if e.Gone {
		delete(open, e.ID)
		return true
	}
	if e.Pool == "" || e.Host == "" || e.Role == "" || e.Port < 0 || len(open) >= maxFormer {
		return false
	}
	open[e.ID] = e
	return true
}

// Former is what former lives have left.
func (r *Register) Former() []Entry {
	if r == nil {
		return nil
	}
	return slices.Clone(r.former)
}

// Backends are the connections that are open and have logged in, by host, in the hosts' order.
func (r *Register) Backends() []armor.HostBackends {
	if r == nil {
		return nil
	}
	byHost := map[string][]uint32{}
	r.mu.Lock()
	for _, e := range r.open {
		if e.PID != 0 {
			byHost[e.Host] = append(byHost[e.Host], e.PID)
		}
	}
	r.mu.Unlock()
	var all []armor.HostBackends
	for _, host := range slices.Sorted(maps.Keys(byHost)) {
		slices.Sort(byHost[host])
		all = append(all, armor.HostBackends{Host: host, PIDs: byHost[host]})
	}
	return all
}

// begin writes down a connection that is about to log in, and numbers it.
func (r *Register) begin(e Entry) Entry {
	if r == nil {
		return e
	}
	r.mu.Lock()
	r.last++
	e.ID = r.last
	r.open[e.ID] = e
	r.writeLocked(e)
	return e
}

// loggedIn writes down whose backend a connection is.
func (r *Register) loggedIn(e Entry) {
	if r == nil || e.ID == 0 {
		return
	}
	r.mu.Lock()
	r.open[e.ID] = e
	r.writeLocked(e)
}

// Strike takes an entry out: PostgreSQL has no backend for it any more.
func (r *Register) Strike(id uint64) {
	if r == nil || id == 0 {
		return
	}
	r.mu.Lock()
	if _, known := r.open[id]; !known {
		r.mu.Unlock()
		return
	}
	delete(r.open, id)
	r.writeLocked(Entry{ID: id, Gone: true})
}

// writeLocked appends a line and unlocks. A disk that takes no line ends no service: what it
// costs is that the next life knows less, should this one be killed.
func (r *Register) writeLocked(e Entry) {
	line, err := json.Marshal(e)
	if err == nil && r.file != nil {
		_, err = r.file.Write(append(line, '\n'))
	}
	r.size += len(line) + 1
	if r.dirty = true; err == nil && r.size >= compactFrom && r.size > 2*len(r.open)*(maxRegisterLine/8) {
		err = r.compactLocked()
	}
	news := err != nil && !r.full
	r.full = err != nil
	r.mu.Unlock()
	if news {
		r.log.Warn("the register of server connections cannot be written: should this node be killed, it will not know which were left open",
			armor.KeyAddress, r.path, armor.KeyErr, err)
	}
}

// compactLocked writes the file anew with nothing but what is open, beside the old one, which
// is there until the new one is whole.
func (r *Register) compactLocked() error {
	var whole bytes.Buffer
	for _, e := range r.open {
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		whole.Write(append(line, '\n'))
	}
	fresh, err := os.OpenFile(r.path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if _, err := fresh.Write(whole.Bytes()); err != nil {
		return errors.Join(err, fresh.Close())
	}
	if err := os.Rename(r.path+".new", r.path); err != nil {
		return errors.Join(err, fresh.Close())
	}
	if r.file != nil {
		_ = r.file.Close() // nothing of it is wanted any more
	}
	r.file, r.size, r.dirty = fresh, whole.Len(), true
	return nil
}

// Run brings to the disk what was written, about once a second, until ctx ends.
func (r *Register) Run(ctx context.Context) {
	if r == nil {
		return
	}
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		if f := r.unsynced(); f != nil {
			if err := f.Sync(); err != nil && !errors.Is(err, fs.ErrClosed) { // a compacted one is another
				r.log.Warn("the register of server connections cannot be brought to the disk", armor.KeyAddress, r.path, armor.KeyErr, err)
			}
		}
	}
}

// unsynced is the file, if something was written to it since.
func (r *Register) unsynced() *os.File {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.dirty {
		return nil
	}
	r.dirty = false
	return r.file
}

// Close closes the file. Nothing is written any more.
func (r *Register) Close() error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.file
	r.file = nil
	return f.Close()
}
