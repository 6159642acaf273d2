//go:build linux

package loop

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/core"
)

// worker is one loop: one goroutine, one epoll instance, and buffers that all of its
// sessions share.
type worker struct {
	poller *poller
	inbox  inbox
	log    *slog.Logger

	// Everything below belongs to the goroutine.
	owners   []owner // by file descriptor
	tickets  []int32 // of the registration of each
	issued   int32
	closing  map[*session]time.Time
	watched  map[*session]struct{} // those that have time-outs
	looks    *time.Timer           // for the next look at them; nil when there are none
	every    time.Duration         // what it was set to
	stopping bool
	vain     int          // consecutive waits that have brought nothing
	moment   armor.Moment // of this batch, once read
	read     bool
	room     []func() // the inbox's other array

	received [receiveSize]byte // from a socket
	plain    []byte            // decrypted, from a client or a server with TLS
	cipher   []byte            // encrypted, for a socket
	gather   []byte            // parts that are sent as one
	out      core.Output
}

// receiveSize is how much is received at once: small buffers are what makes bulk
// results expensive.
const receiveSize = 64 << 10

// owner is told what happens on a file descriptor.
type owner interface {
	happened(events uint32)
}

func newWorker(log *slog.Logger) (*worker, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	return &worker{poller: p, log: log, closing: map[*session]time.Time{}, watched: map[*session]struct{}{}}, nil
}

// post leaves work for the loop. It reports false when the loop has ended.
func (w *worker) post(work func()) bool {
	wake, ok := w.inbox.put(work)
	if wake {
		w.poller.wake()
	}
	return ok
}

// live asks whether a session may go on, by clocks that are read once for a batch of
// events.
func (w *worker) live(g pooler.Guest) error {
	if !w.read {
		w.moment, w.read = g.Moment(), true
	}
	return g.LiveAt(w.moment)
}

// tick is how often sessions that are closing are looked at while there are any.
const tick = 250 * time.Millisecond

// run is the loop. It ends after stop.
func (w *worker) run() {
	for {
		if w.doWork(); w.stopping {
			break
		}
		w.read = false
		events, err := w.events()
		if err != nil {
			w.log.Error("event loop ends", armor.KeyErr, err)
			break
		}
		for _, e := range events {
			w.dispatch(e)
		}
		w.closeLate()
	}
	for _, work := range w.inbox.close() {
		work()
	}
	_ = w.poller.close() // the process ends
}

// lingers is how often the loop lingers before it waits for good.
const lingers = 10

// events returns what has happened, waiting for it if need be.
func (w *worker) events() ([]syscall.EpollEvent, error) {
	if !w.inbox.sleep() {
		return nil, nil
	}
	defer w.inbox.awake()
	events, err := w.lingerOrWait()
	if w.vain++; len(events) > 0 {
		w.vain = 0
	}
	return events, err
}

func (w *worker) lingerOrWait() ([]syscall.EpollEvent, error) {
	if w.vain < lingers {
		return w.poller.linger()
	}
	return w.poller.wait(w.patience())
}

func (w *worker) patience() int {
	if len(w.closing) == 0 {
		return -1
	}
	return int(tick / time.Millisecond)
}

func (w *worker) dispatch(e syscall.EpollEvent) {
	fd := int(e.Fd)
	if fd == w.poller.wakefd {
		w.poller.woken()
		return
	}
	if fd < len(w.owners) && w.owners[fd] != nil && w.tickets[fd] == e.Pad {
		w.tell(w.owners[fd], e.Events)
	}
	w.doWork() // what it has set off: grants, mostly
}

// tell passes an event on. A session in which something panics ends alone.
func (w *worker) tell(o owner, events uint32) {
	defer w.rescue(o)
	o.happened(events)
}

// rescue is deferred around everything that is done for a session: whoever serves the
// session is told of its panic.
func (w *worker) rescue(o owner) {
	cause := recover()
	if cause == nil {
		return
	}
	s, _ := o.(*session)
	if v, ok := o.(*server); ok {
		s = v.session
	}
	if s == nil {
		panic(cause) // of no session: the loop itself is broken
	}
	s.panicked = fmt.Errorf("%v: %s", cause, debug.Stack())
	s.reset()
}

func (w *worker) doWork() {
	for {
		work := w.inbox.take(w.room)
		if len(work) == 0 {
			w.room = work
			return
		}
		for i, do := range work {
			do()
			work[i] = nil
		}
		w.room = work
	}
}

// own registers a file descriptor.
func (w *worker) own(fd int, events uint32, o owner) error {
	for fd >= len(w.owners) {
		room := len(w.owners) + 64
		w.owners, w.tickets = append(w.owners, make([]owner, room)...), append(w.tickets, make([]int32, room)...)
	}
	w.issued++
	w.owners[fd], w.tickets[fd] = o, w.issued
	return w.poller.add(fd, events, w.issued)
}

// disown forgets a file descriptor that is about to be closed or moved.
func (w *worker) disown(fd int) {
	if fd >= 0 && fd < len(w.owners) && w.owners[fd] != nil {
		w.owners[fd] = nil
		_ = w.poller.remove(fd) // it may be closed already, which has removed it
	}
}

// closeLate ends sessions whose client does not take its last words.
func (w *worker) closeLate() {
	if len(w.closing) == 0 {
		return
	}
	now := time.Now()
	for s, until := range w.closing {
		if now.After(until) {
			s.finish()
		}
	}
}

// joined returns the parts as one slice, copying only when they are several.
func (w *worker) joined(b *core.Bytes) []byte {
	parts := b.Parts()
	switch len(parts) {
	case 0:
		return nil
	case 1:
		return parts[0]
	}
	w.gather = b.AppendTo(w.gather[:0])
	return w.gather
}
