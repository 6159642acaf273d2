// Package pgwire is PostgreSQL's frontend/backend protocol as bytes: headers and
// their bounds, the few messages that steer a session, and the encoding of what we
// say ourselves (PostgreSQL, "Frontend/Backend Protocol").
//
// It alone imports pgproto3/v2, and only to encode. That library panics on some
// malformed messages and allocates whatever length a header claims, so nothing a
// peer has sent is ever decoded by it: see SECURITY.md.
//
// Invariant: no function here panics, allocates more than its argument's size, or
// keeps a reference to it, whatever the bytes are.
package pgwire
