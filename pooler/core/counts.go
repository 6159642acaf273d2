package core

// Counts are what was done over one server connection since they were last taken. They
// are kept here, and not per message by whoever shows them, so that counting costs an
// addition: they are taken when the connection goes back to its pool.
type Counts struct {
	Queries      uint64 // simple queries, function calls and Executes
	Transactions uint64
	Received     uint64 // bytes from clients
	Sent         uint64 // bytes from PostgreSQL
	ClientParses uint64
	ServerParses uint64
	Binds        uint64
}

// Add adds o to c.
func (c *Counts) Add(o Counts) {
	c.Queries += o.Queries
	c.Transactions += o.Transactions
	c.Received += o.Received
	c.Sent += o.Sent
	c.ClientParses += o.ClientParses
	c.ServerParses += o.ServerParses
	c.Binds += o.Binds
}

// TakeCounts returns what has come together since the last call. Only whoever has the
// connection may call it.
func (sv *Server) TakeCounts() Counts {
	c, pushed := sv.counts, &sv.owed.pushed
	c.Queries = pushed[opQuery] + pushed[opFunction] + pushed[opExecute]
	c.ClientParses = pushed[opParse]
	c.ServerParses = pushed[opParse] + pushed[opParseAhead]
	c.Binds = pushed[opBind]
	sv.counts, *pushed = Counts{}, [opKinds]uint64{}
	return c
}

// Prepared is how many statements the connection has prepared for its clients.
func (sv *Server) Prepared() int { return sv.prepared.len() }
