package backend

import "time"

// DropUnsent resets the connection if bytes lie in the kernel that PostgreSQL has not taken: so
// they are dropped, where an ordinary close would deliver them whenever the network heals. Then
// there is no end to be read: see Orphan. Whoever has the connection calls it, and has no use
// for it afterwards but to give it back.
func (c *Conn) DropUnsent() {
	linger, can := c.raw.(interface{ SetLinger(int) error })
	if !can || c.severed || unsent(c.raw) == 0 || linger.SetLinger(0) != nil {
		return
	}
	c.severed = true
	c.raw.Close()
}

// Orphan is what the register says of a connection that was reset: PostgreSQL may have a backend
// for it, and only a look tells. It reports false for one whose end can be read.
func (c *Conn) Orphan() (Entry, bool) {
	e := c.entry
	e.Since = time.Now()
	return e, c.severed
}
