package armor

// The keys of our log lines. A line uses these and no others, so that one search
// finds every line about a node, a session or a revision.
const (
	KeyNode      = "node"
	KeyPrincipal = "principal" // who asked for a change: an operator, or node/ID
	KeyObjects   = "objects"   // what a change, or a reload, is about
	KeyRequest   = "request_id"
	KeyPeer      = "peer"
	KeyIdentity  = "identity"
	KeySerial    = "serial"
	KeySource    = "source"
	KeyPool      = "pool"
	KeyDatabase  = "database"
	KeyRole      = "role"
	KeyRevision  = "revision"
	KeyTerm      = "term"
	KeyEra       = "era"
	KeySession   = "session"
	KeyReason    = "reason"
	KeyDenial    = "denial_id"
	KeySQLState  = "sqlstate"
	KeyMethod    = "method"
	KeyCause     = "cause"
	KeyErr       = "err"
	KeyTook      = "took"
	KeyCount     = "count"
	KeyAddress   = "address"
	KeySkew      = "skew_seconds"
	KeySignal    = "signal" // of the operating system
	KeyHint      = "hint"

	// What a certificate says whose key nobody has proved to hold.
	KeyUnproven  = "unproven"
	KeySubject   = "subject"
	KeyIssuer    = "issuer"
	KeyAuthority = "authority_key"
	KeySent      = "certificates_sent"
)
