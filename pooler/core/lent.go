package core

import (
	"fmt"
	"strings"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/pooler/pgwire"
)

// Server is the protocol state of one server connection. It travels with the
// connection from session to session; whoever has the connection has it.
type Server struct {
	params   *Params
	base     *Params   // what is reported when nothing is set
	settings *Settings // that clients have had set, as far as they are known
	owner    string    // of the client that had it last
	user     uint64    // that client's session; zero before the first
	// matched are the parameters of a client that were last found to be in force, so
	// that lending to one with the same is a comparison of pointers.
	matched  *Params
	prepared preparedSet
	keeps    int // how many statements stay prepared
	secret   Secret
	// The unnamed statement that the connection has: the ID of the session that prepared
	// it, zero for nobody's, and its turn, by which a session counts those it has sent.
	unnamedOwner uint64
	unnamedTurn  uint32
	numbers      uint64 // the session that has last drawn from a sequence; zero: none since the reset
	dirty        bool
	gift
	// suspect: it may say more than is owed. A COPY behind which a Sync had been sent has
	// failed, perhaps before PostgreSQL came to ignore the Sync.
	suspect bool

	fenced []byte // what a client has sent behind a fence that is not answered yet
	owed   queue  // the replies that PostgreSQL owes; empty while idle
	counts Counts
	status byte // of the last ReadyForQuery
}

// NewServer returns the state of a connection that has just logged in, with the
// parameters that were reported.
func NewServer(params *Params, own Secret) *Server {
	return &Server{params: params, base: params, secret: own, status: 'I', keeps: armor.DefaultPreparedStatements}
}

// KeepPrepared says how many statements the connection keeps prepared from now on, at least
// one. When it has more, the next message about statements has the others closed.
func (sv *Server) KeepPrepared(n int) { sv.keeps = max(n, 1) }

// nameOf is what a statement is called on this connection, if it has it.
func (sv *Server) nameOf(st *statement) string {
	if node := sv.prepared.find(st.key); node != nil {
		return node.name
	}
	return sv.secret.name(st.key)
}

// Params returns the parameters in force.
func (sv *Server) Params() *Params { return sv.params }

// Base returns what the connection reports when no client has set anything, as far as it has
// said so by now: a change of the server's configuration shows with the next command.
func (sv *Server) Base() *Params { return sv.base }

// Owner is who had the connection last; empty before the first.
func (sv *Server) Owner() string { return sv.owner }

// Dirty reports whether a session may have left something behind, so that the
// connection must be reset (DISCARD ALL) before it is lent again.
func (sv *Server) Dirty() bool { return (sv.dirty || sv.stripped) && mutant != ResetOff }

// Open reports whether a client has gone in the middle of a transaction block, which is to be
// rolled back before anything else.
func (sv *Server) Open() bool { return sv.status != 'I' }

// WasReset tells that DISCARD ALL has been answered: nothing is prepared or set any
// more.
func (sv *Server) WasReset() {
	sv.wipe()
	sv.base, sv.user = sv.params, 0
}

// wipe is WasReset when what the reset has changed is still to be reported.
func (sv *Server) wipe() {
	sv.prepared.clear()
	sv.settings, sv.matched, sv.unnamedOwner, sv.numbers, sv.dirty = nil, nil, 0, 0, false
}

// Apply tells that settings of an owner's were put in force outside of a session, on a
// connection that was reset.
func (sv *Server) Apply(s *Settings, owner string) {
	sv.settings, sv.matched, sv.owner, sv.user = s, nil, owner, noSession
}

// noSession is the user of a connection that was used, but by no session.
const noSession = ^uint64(0)

func (sv *Server) setParam(name, value string) {
	if p := sv.params.With(name, value); p != sv.params {
		sv.params, sv.matched = p, nil
	}
}

// setBase is setParam where no client has set the parameter: the server has another value for
// everybody now, unless one of the known settings hides it.
func (sv *Server) setBase(name, value string) {
	if _, hidden := sv.settings.get(strings.ToLower(name)); !hidden {
		sv.base = sv.base.With(name, value)
	}
}

// smallReply bounds the server messages that are looked at as a whole, in bytes.
const smallReply = 1 << 20

// FromIdle takes bytes that arrive while the connection is lent to nobody and
// returns how many it consumed; the rest is the beginning of a message. What
// PostgreSQL may say unasked is noted or dropped (PostgreSQL, "Asynchronous
// Operations"). Anything else is an error, and the connection is of no use.
func (sv *Server) FromIdle(b []byte) (n int, err error) {
	return eachMessage(b, func(h pgwire.Header, body []byte) error {
		switch h.Type {
		case pgwire.ParameterStatus:
			name, value, err := sv.takeStatus(body)
			if err == nil {
				sv.setBase(name, value)
			}
			return err
		case pgwire.NoticeResponse, pgwire.NotificationResponse:
			return nil
		case pgwire.ErrorResponse:
			e := pgwire.ParseError(body)
			return &e
		}
		return fmt.Errorf("%w: message %q from PostgreSQL on an idle connection", armor.ErrInvalid, h.Type)
	})
}

// Exchange collects the answer to one query that the pool asks by itself.
type Exchange struct {
	Err  *pgwire.Error // the first error, if any
	Done bool          // ReadyForQuery has come
	Keep int           // how many rows are wanted
	Rows [][]string    // the first of them; a NULL is empty
	Seen int           // how many there were
}

// FromExchange is FromIdle while an Exchange is in progress.
func (sv *Server) FromExchange(b []byte, x *Exchange) (n int, err error) {
	return eachMessage(b, func(h pgwire.Header, body []byte) error {
		if x.Done {
			return fmt.Errorf("%w: message %q from PostgreSQL after its answer", armor.ErrInvalid, h.Type)
		}
		switch h.Type {
		case pgwire.ParameterStatus:
			_, _, err := sv.takeStatus(body)
			return err
		case pgwire.ErrorResponse:
			if e := pgwire.ParseError(body); x.Err == nil {
				x.Err = &e
			}
		case pgwire.ParseComplete:
			sv.unnamedOwner = 0 // the unnamed statement is ours now
		case pgwire.DataRow:
			return x.row(body)
		case pgwire.ReadyForQuery:
			status, err := pgwire.ReadyStatus(body)
			if err == nil && status != 'I' {
				err = fmt.Errorf("%w: PostgreSQL is still in a transaction", armor.ErrInvalid)
			}
			sv.status = status
			x.Done, sv.unnamedOwner = true, 0 // a simple query drops it
			return err
		}
		return nil
	})
}

func (x *Exchange) row(body []byte) error {
	if x.Seen++; x.Seen > x.Keep {
		return nil
	}
	values, err := pgwire.RowFields(body)
	if err != nil {
		return err
	}
	row := make([]string, len(values))
	for i, v := range values {
		row[i] = string(v)
	}
	x.Rows = append(x.Rows, row)
	return nil
}

func (sv *Server) takeStatus(body []byte) (name, value string, err error) {
	n, v, err := pgwire.StatusFields(body)
	if err == nil {
		sv.setParam(string(n), string(v))
	}
	return string(n), string(v), err
}

// eachMessage hands over every whole message of b and returns the length of them.
func eachMessage(b []byte, take func(h pgwire.Header, body []byte) error) (n int, err error) {
	for len(b)-n >= pgwire.HeaderSize {
		h, err := pgwire.ServerHeader(b[n:])
		if err == nil && h.Size() > smallReply {
			err = fmt.Errorf("%w: message %q of %d bytes from PostgreSQL", armor.ErrInvalid, h.Type, h.Size())
		}
		if err != nil {
			return n, err
		}
		if len(b)-n < h.Size() {
			return n, nil
		}
		if err := take(h, b[n+pgwire.HeaderSize:n+h.Size()]); err != nil {
			return n, err
		}
		n += h.Size()
	}
	return n, nil
}
