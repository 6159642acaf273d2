//go:build linux

package loop

import (
	"crypto/tls"
	"errors"
	"io"
	"syscall"
)

// line is one socket that a loop drives, with TLS on it or without.
type line struct {
	w    *worker
	conn *Conn
	tls  *tls.Conn // nil: none

	ready   bool   // something may have arrived
	partial []byte // the beginning of a TLS record
	failed  error  // how receiving has ended, once what came before is consumed
	unsent  []byte // what the socket did not take
}

// begin makes the loop a user of the socket and TLS work in memory.
func (l *line) begin() error {
	if err := l.conn.enter(); err != nil {
		return err
	}
	if l.tls != nil {
		l.conn.memory, l.conn.out = true, &l.w.cipher
	}
	return nil
}

// end gives the socket back to whoever had it before.
func (l *line) end() {
	l.conn.memory = false
	l.unsent = nil
	l.conn.leave()
}

// left is what epoll says of the other side's end.
const left = syscall.EPOLLRDHUP | syscall.EPOLLHUP | syscall.EPOLLERR

// noted takes what epoll says.
func (l *line) noted(events uint32) (writable bool) {
	if events&^syscall.EPOLLOUT != 0 {
		l.ready = true
	}
	if events&left != 0 {
		l.conn.hungUp.Store(true)
	}
	return events&(syscall.EPOLLOUT|syscall.EPOLLERR|syscall.EPOLLHUP) != 0 && len(l.unsent) > 0
}

// next receives once and returns the plaintext of it, which may be empty and is valid
// until anything is received again. The error is errAgain when all has been received,
// and io.EOF at the end.
func (l *line) next() ([]byte, error) {
	if l.failed != nil {
		return nil, l.failed
	}
	n := copy(l.w.received[:], l.partial)
	got, err := recv(l.conn.fd, l.w.received[n:])
	switch {
	case errors.Is(err, syscall.EAGAIN):
		l.ready = false
		return nil, errAgain
	case err != nil:
		return nil, err
	case got == 0:
		return nil, io.EOF
	}
	if got < len(l.w.received)-n && !l.conn.hungUp.Load() {
		l.ready = false // drained: an event will tell of the next byte
	}
	if l.tls == nil {
		return l.w.received[:got], nil
	}
	return l.decrypt(l.w.received[:n+got])
}

// decrypt returns the plaintext of all whole records. It fits, being shorter than
// what was received.
func (l *line) decrypt(b []byte) ([]byte, error) {
	room, n := l.w.plainRoom(), 0
	l.conn.in = b
	for l.failed == nil && wholeRecord(l.conn.in) > 0 {
		got, err := l.tls.Read(room[n:])
		n += got
		if err != nil && !errors.Is(err, errAgain) {
			l.failed = err
		}
	}
	l.partial = nil
	if rest := l.conn.in; len(rest) > 0 && l.failed == nil {
		l.partial = append(make([]byte, 0, len(rest)), rest...)
	}
	l.conn.in = nil
	if err := l.sendCipher(); err != nil { // of a KeyUpdate that TLS has answered
		l.failed = err
	}
	if n == 0 && l.failed != nil {
		return nil, l.failed
	}
	return room[:n], nil
}

// leftover returns, piece by piece, what TLS had decrypted before the loop had it.
func (l *line) leftover() []byte {
	if l.tls == nil {
		return nil
	}
	n, err := l.tls.Read(l.w.plainRoom())
	if err != nil && !errors.Is(err, errAgain) {
		l.failed = err
	}
	return l.w.plain[:n]
}

// plainRoom returns the buffer for plaintext.
func (w *worker) plainRoom() []byte {
	if w.plain == nil {
		w.plain = make([]byte, receiveSize)
	}
	return w.plain
}

// write encrypts and sends; what the socket does not take is kept.
func (l *line) write(b []byte) error {
	switch {
	case len(b) == 0:
		return nil
	case l.tls == nil:
		return l.send(b)
	}
	if _, err := l.tls.Write(b); err != nil {
		return err
	}
	return l.sendCipher()
}

// sendCipher sends what TLS has written into the loop's buffer.
func (l *line) sendCipher() error {
	b := l.w.cipher
	if len(b) == 0 {
		return nil
	}
	l.w.cipher = b[:0]
	if cap(b) > 4*receiveSize {
		l.w.cipher = nil
	}
	return l.send(b)
}

func (l *line) send(b []byte) error {
	if len(l.unsent) > 0 {
		l.unsent = append(l.unsent, b...)
		return nil
	}
	n, err := send(l.conn.fd, b)
	if err != nil && !errors.Is(err, syscall.EAGAIN) {
		return err
	}
	if n < len(b) {
		l.unsent = append([]byte(nil), b[n:]...)
	}
	return nil
}

// flush goes on sending what was kept.
func (l *line) flush() error {
	n, err := send(l.conn.fd, l.unsent)
	if err != nil && !errors.Is(err, syscall.EAGAIN) {
		return err
	}
	if l.unsent = l.unsent[n:]; len(l.unsent) == 0 {
		l.unsent = nil
	}
	return nil
}
