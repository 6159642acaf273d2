package core

import "slices"

// gift is what the pool's own query has set on a server connection when that had logged in, and
// after each reset of the pool's: it is in force for every client that sets nothing else, and
// nobody's own.
type gift struct {
	gifted   bool      // such a query was run
	given    *Settings // that it has set
	stripped bool      // a client's command may have taken them away: see strip
}

// AskGiven is what PostgreSQL is asked when the pool's own query was run on a connection that
// has just logged in, or was reset. keep are the pool's keepSettings.
func AskGiven(query string, keep []string) string {
	var k keeping
	k.touch(read([]byte(query)), nil)
	k.touched = reading{marks: resetsAll, names: k.touched.names}
	return k.question(keep)
}

// Give tells that the pool's own query was run on the connection, which no client has used
// since it logged in or was reset, and what PostgreSQL has answered to AskGiven.
func (sv *Server) Give(query string, rows [][]string) error {
	var a answer
	for _, row := range rows {
		values := make([][]byte, len(row))
		for i, v := range row {
			values[i] = []byte(v)
		}
		if err := a.take(values); err != nil {
			return err
		}
	}
	login, _ := sv.base.Get("session_authorization")
	given, text := map[string]string{}, read([]byte(query))
	for _, p := range a.settings {
		if !p.isUnset(login, text.marks&sets != 0 && slices.Contains(text.names, p.name)) {
			given[p.name] = p.value
		}
	}
	sv.gift = gift{gifted: true, given: NewSettings(given)}
	sv.base = sv.params
	return nil
}

// Gifted reports whether a reset is more than DISCARD ALL: the pool's own query is to be run
// again. A fence cannot do that, since the query may be of several statements. So the pool
// itself resets the connection before it lends it to whom MustReset speaks of.
func (sv *Server) Gifted() bool { return sv.gifted }

// Soil has the connection reset before it is lent again.
func (sv *Server) Soil() { sv.dirty = true }

// strip notes that a client has reset everything. It is not to be met by the next transaction.
func (sv *Server) strip() { sv.stripped = sv.gifted }

// missGiven notes that what the connection was given is not set any more. PostgreSQL was asked
// for all, or for what the client's texts have named, and these are set.
func (s *Session) missGiven(all bool, set []string) {
	for _, p := range s.sv.given.list() {
		asked := all || slices.Contains(s.kept.touched.names, p.name)
		s.sv.stripped = s.sv.stripped || asked && !slices.Contains(set, p.name)
	}
}

// has reports whether a name has this very value.
func (s *Settings) has(p pair) bool {
	value, set := s.get(p.name)
	return set && value == p.value
}

// unlisted returns names and those of the settings that PostgreSQL does not list.
func (s *Settings) unlisted(names []string) []string {
	names = names[:len(names):len(names)]
	for _, p := range s.list() {
		if isUnlisted(p.name) {
			names = appendOnce(names, p.name)
		}
	}
	return names
}
