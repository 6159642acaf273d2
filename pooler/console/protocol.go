package console

import (
	"fmt"

	"github.com/armordb/armordb/pooler/pgwire"
)

// statement is a prepared command of the console.
type statement struct{ command command }

// portal is a command that is bound, and its answer as far as it was not fetched.
type portal struct {
	command  command
	formats  []int16
	executed bool
	answer   answer
}

// maxNames bounds the statements and the portals of one session, each.
const maxNames = 64

// answer is what a command answers.
type answer struct {
	columns []column // nil: it has no rows
	rows    []row
	tag     string
	notice  *pgwire.Error
}

// handle deals with one message. It returns false when the session is over.
func (s *session) handle(kind byte, body []byte) bool {
	if s.skipping && kind != pgwire.Sync && kind != pgwire.Terminate {
		return true
	}
	switch kind {
	case pgwire.Terminate:
		return false
	case pgwire.Query:
		return s.simple(body)
	case pgwire.Sync:
		s.skipping = false
		s.portals = map[string]*portal{} // as at the end of a transaction
		s.out = pgwire.AppendReady(s.out, 'I')
		return s.flush()
	case pgwire.Flush:
		return s.flush()
	case pgwire.Parse, pgwire.Bind, pgwire.Describe, pgwire.Execute, pgwire.Close:
		return s.extended(kind, body)
	}
	s.say(fatal(fmt.Sprintf("unsupported packet type for admin console: %d", kind)))
	s.flush()
	return false
}

// simple answers a Query.
func (s *session) simple(body []byte) bool {
	text, err := pgwire.QueryText(body)
	if err != nil {
		s.farewell(err)
		return false
	}
	cmd, refused := parseCommand(string(text))
	switch {
	case refused != nil:
		s.say(refused)
	case cmd.verb == "":
		s.out = pgwire.AppendEmptyQuery(s.out)
	default:
		s.answerText(cmd)
	}
	s.out = pgwire.AppendReady(s.out, 'I')
	return s.flush()
}

// answerText runs a command and answers in text.
func (s *session) answerText(cmd command) {
	a, refused := s.execute(cmd)
	if refused != nil {
		s.say(refused)
		return
	}
	if a.columns != nil {
		s.out = pgwire.AppendRowDescription(s.out, describe(a.columns, nil))
	}
	s.fetch(&a, nil, 0)
}

// fetch appends a notice, rows and the tag, or at most limit rows when that is not 0.
func (s *session) fetch(a *answer, formats []int16, limit int) {
	if a.notice != nil {
		s.out = pgwire.AppendNotice(s.out, a.notice)
		a.notice = nil
	}
	n := len(a.rows)
	if limit > 0 {
		n = min(n, limit)
	}
	for _, r := range a.rows[:n] {
		s.out = pgwire.AppendDataRow(s.out, encodeRow(a.columns, r, formats))
	}
	if a.rows = a.rows[n:]; len(a.rows) > 0 {
		s.out = pgwire.AppendPortalSuspended(s.out)
		return
	}
	s.out = pgwire.AppendCommandComplete(s.out, a.tag)
}

func (s *session) say(e *pgwire.Error) { s.out = pgwire.AppendError(s.out, e) }

// extended deals with a message of the extended protocol. After an error the others up
// to Sync are skipped.
func (s *session) extended(kind byte, body []byte) bool {
	steps := map[byte]func([]byte) error{
		pgwire.Parse: s.parse, pgwire.Bind: s.bind, pgwire.Describe: s.describe, pgwire.Execute: s.executePortal, pgwire.Close: s.close,
	}
	switch err := steps[kind](body).(type) { //nolint:errorlint // our own functions return them as they are
	case nil:
	case *pgwire.Error:
		s.say(err)
		s.skipping = true
	default:
		s.farewell(err)
		return false
	}
	if len(s.out) > maxMessage {
		return s.flush()
	}
	return true
}

func (s *session) parse(body []byte) error {
	name, tail, err := pgwire.ParseFields(body)
	if err != nil {
		return err
	}
	cmd, refused := parseCommand(string(pgwire.ParseText(tail)))
	_, taken := s.statements[string(name)]
	switch {
	case refused != nil:
		return refused
	case taken && len(name) > 0:
		return refusal("42P05", fmt.Sprintf("prepared statement %q already exists", quoted(string(name))))
	case !taken && len(s.statements) >= maxNames:
		return refusal("54000", "too many prepared statements")
	}
	s.statements[string(name)] = &statement{cmd}
	s.out = pgwire.AppendParseComplete(s.out)
	return nil
}

func (s *session) bind(body []byte) error {
	to, name, tail, _, err := pgwire.BindFields(body, true)
	if err != nil {
		return err
	}
	parameters, formats, err := pgwire.BindTail(tail)
	if err != nil {
		return err
	}
	st := s.statements[string(name)]
	if st == nil {
		return noStatement(name)
	}
	cols := s.columnsOf(st.command)
	_, taken := s.portals[string(to)]
	switch {
	case parameters > 0:
		return refusal(stateProtocol, fmt.Sprintf("bind message supplies %d parameters, but commands of the admin console take none", parameters))
	case len(formats) > 1 && len(formats) != len(cols):
		return refusal(stateProtocol, fmt.Sprintf("bind message has %d result formats but query has %d columns", len(formats), len(cols)))
	case !taken && len(s.portals) >= maxNames:
		return refusal("54000", "too many portals")
	}
	for _, f := range formats {
		if f != pgwire.FormatText && f != pgwire.FormatBinary {
			return refusal("22023", fmt.Sprintf("unsupported format code: %d", f))
		}
	}
	s.portals[string(to)] = &portal{command: st.command, formats: formats}
	s.out = pgwire.AppendBindComplete(s.out)
	return nil
}

func noStatement(name []byte) error {
	return refusal("26000", fmt.Sprintf("prepared statement %q does not exist", quoted(string(name))))
}

func noPortal(name []byte) error {
	return refusal("34000", fmt.Sprintf("portal %q does not exist", quoted(string(name))))
}

func (s *session) describe(body []byte) error {
	prepared, name, err := pgwire.TargetFields(pgwire.Describe, body)
	if err != nil {
		return err
	}
	var cmd command
	var formats []int16
	if prepared {
		st := s.statements[string(name)]
		if st == nil {
			return noStatement(name)
		}
		cmd = st.command
		s.out = pgwire.AppendNoParameters(s.out)
	} else {
		p := s.portals[string(name)]
		if p == nil {
			return noPortal(name)
		}
		cmd, formats = p.command, p.formats
	}
	if cols := s.columnsOf(cmd); cols != nil {
		s.out = pgwire.AppendRowDescription(s.out, describe(cols, formats))
	} else {
		s.out = pgwire.AppendNoData(s.out)
	}
	return nil
}

func (s *session) executePortal(body []byte) error {
	name, limit, err := pgwire.ExecuteFields(body)
	if err != nil {
		return err
	}
	p := s.portals[string(name)]
	switch {
	case p == nil:
		return noPortal(name)
	case p.command.verb == "":
		s.out = pgwire.AppendEmptyQuery(s.out)
		return nil
	case !p.executed:
		a, refused := s.execute(p.command)
		if refused != nil {
			return refused
		}
		p.executed, p.answer = true, a
	case p.answer.columns == nil:
		return refusal(stateNotInState, fmt.Sprintf("portal %q cannot be run again", quoted(string(name))))
	}
	s.fetch(&p.answer, p.formats, limit)
	return nil
}

func (s *session) close(body []byte) error {
	prepared, name, err := pgwire.TargetFields(pgwire.Close, body)
	if err != nil {
		return err
	}
	if prepared {
		delete(s.statements, string(name))
	} else {
		delete(s.portals, string(name))
	}
	s.out = pgwire.AppendCloseComplete(s.out)
	return nil
}
