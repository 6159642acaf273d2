package pooler

import (
	"fmt"

	"github.com/armordb/armordb/pooler/pgwire"
)

// adminStatement is a prepared command of the console.
type adminStatement struct{ command command }

// adminPortal is a command that is bound, and its answer as far as it was not fetched.
type adminPortal struct {
	command  command
	formats  []int16
	executed bool
	answer   answer
}

// maxConsoleNames bounds the statements and the portals of one session, each.
const maxConsoleNames = 64

// answer is what a command answers.
type answer struct {
	columns []column // nil: it has no rows
	rows    []row
	tag     string
	notice  *pgwire.Error
}

// handle deals with one message. It returns false when the session is over.
func (c *console) handle(kind byte, body []byte) bool {
	if c.skipping && kind != pgwire.Sync && kind != pgwire.Terminate {
		return true
	}
	switch kind {
	case pgwire.Terminate:
		return false
	case pgwire.Query:
		return c.simple(body)
	case pgwire.Sync:
		c.skipping = false
		c.portals = map[string]*adminPortal{} // as at the end of a transaction
		c.out = pgwire.AppendReady(c.out, 'I')
		return c.flush()
	case pgwire.Flush:
		return c.flush()
	case pgwire.Parse, pgwire.Bind, pgwire.Describe, pgwire.Execute, pgwire.Close:
		return c.extended(kind, body)
	}
	c.say(&pgwire.Error{Severity: pgwire.SeverityFatal, Code: stateProtocol, Message: fmt.Sprintf("unsupported packet type for admin console: %d", kind)})
	c.flush()
	return false
}

// simple answers a Query.
func (c *console) simple(body []byte) bool {
	text, err := pgwire.QueryText(body)
	if err != nil {
		c.farewell(err)
		return false
	}
	cmd, refused := parseCommand(string(text))
	switch {
	case refused != nil:
		c.say(refused)
	case cmd.verb == "":
		c.out = pgwire.AppendEmptyQuery(c.out)
	default:
		c.answerText(cmd)
	}
	c.out = pgwire.AppendReady(c.out, 'I')
	return c.flush()
}

// answerText runs a command and answers in text.
func (c *console) answerText(cmd command) {
	a, refused := c.execute(cmd)
	if refused != nil {
		c.say(refused)
		return
	}
	if a.columns != nil {
		c.out = pgwire.AppendRowDescription(c.out, describe(a.columns, nil))
	}
	c.fetch(&a, nil, 0)
}

// fetch appends a notice, rows and the tag, or at most limit rows when that is not 0.
func (c *console) fetch(a *answer, formats []int16, limit int) {
	if a.notice != nil {
		c.out = pgwire.AppendNotice(c.out, a.notice)
		a.notice = nil
	}
	n := len(a.rows)
	if limit > 0 {
		n = min(n, limit)
	}
	for _, r := range a.rows[:n] {
		c.out = pgwire.AppendDataRow(c.out, encodeRow(a.columns, r, formats))
	}
	if a.rows = a.rows[n:]; len(a.rows) > 0 {
		c.out = pgwire.AppendPortalSuspended(c.out)
		return
	}
	c.out = pgwire.AppendCommandComplete(c.out, a.tag)
}

func (c *console) say(e *pgwire.Error) { c.out = pgwire.AppendError(c.out, e) }

// extended deals with a message of the extended protocol. After an error the others up
// to Sync are skipped.
func (c *console) extended(kind byte, body []byte) bool {
	steps := map[byte]func([]byte) error{
		pgwire.Parse: c.parse, pgwire.Bind: c.bind, pgwire.Describe: c.describe, pgwire.Execute: c.executePortal, pgwire.Close: c.close,
	}
	switch err := steps[kind](body).(type) { //nolint:errorlint // our own functions return them as they are
	case nil:
	case *pgwire.Error:
		c.say(err)
		c.skipping = true
	default:
		c.farewell(err)
		return false
	}
	if len(c.out) > maxConsoleMessage {
		return c.flush()
	}
	return true
}

func (c *console) parse(body []byte) error {
	name, tail, err := pgwire.ParseFields(body)
	if err != nil {
		return err
	}
	cmd, refused := parseCommand(string(pgwire.ParseText(tail)))
	_, taken := c.statements[string(name)]
	switch {
	case refused != nil:
		return refused
	case taken && len(name) > 0:
		return consoleError("42P05", fmt.Sprintf("prepared statement %q already exists", quoted(string(name))))
	case !taken && len(c.statements) >= maxConsoleNames:
		return consoleError("54000", "too many prepared statements")
	}
	c.statements[string(name)] = &adminStatement{cmd}
	c.out = pgwire.AppendParseComplete(c.out)
	return nil
}

func (c *console) bind(body []byte) error {
	portal, name, tail, _, err := pgwire.BindFields(body, true)
	if err != nil {
		return err
	}
	parameters, formats, err := pgwire.BindTail(tail)
	if err != nil {
		return err
	}
	st := c.statements[string(name)]
	if st == nil {
		return noStatement(name)
	}
	cols := c.columnsOf(st.command)
	_, taken := c.portals[string(portal)]
	switch {
	case parameters > 0:
		return consoleError(stateProtocol, fmt.Sprintf("bind message supplies %d parameters, but commands of the admin console take none", parameters))
	case len(formats) > 1 && len(formats) != len(cols):
		return consoleError(stateProtocol, fmt.Sprintf("bind message has %d result formats but query has %d columns", len(formats), len(cols)))
	case !taken && len(c.portals) >= maxConsoleNames:
		return consoleError("54000", "too many portals")
	}
	for _, f := range formats {
		if f != pgwire.FormatText && f != pgwire.FormatBinary {
			return consoleError("22023", fmt.Sprintf("unsupported format code: %d", f))
		}
	}
	c.portals[string(portal)] = &adminPortal{command: st.command, formats: formats}
	c.out = pgwire.AppendBindComplete(c.out)
	return nil
}

func noStatement(name []byte) error {
	return consoleError("26000", fmt.Sprintf("prepared statement %q does not exist", quoted(string(name))))
}

func noPortal(name []byte) error {
	return consoleError("34000", fmt.Sprintf("portal %q does not exist", quoted(string(name))))
}

func (c *console) describe(body []byte) error {
	prepared, name, err := pgwire.TargetFields(pgwire.Describe, body)
	if err != nil {
		return err
	}
	var cmd command
	var formats []int16
	if prepared {
		st := c.statements[string(name)]
		if st == nil {
			return noStatement(name)
		}
		cmd = st.command
		c.out = pgwire.AppendNoParameters(c.out)
	} else {
		p := c.portals[string(name)]
		if p == nil {
			return noPortal(name)
		}
		cmd, formats = p.command, p.formats
	}
	if cols := c.columnsOf(cmd); cols != nil {
		c.out = pgwire.AppendRowDescription(c.out, describe(cols, formats))
	} else {
		c.out = pgwire.AppendNoData(c.out)
	}
	return nil
}

func (c *console) executePortal(body []byte) error {
	name, limit, err := pgwire.ExecuteFields(body)
	if err != nil {
		return err
	}
	p := c.portals[string(name)]
	switch {
	case p == nil:
		return noPortal(name)
	case p.command.verb == "":
		c.out = pgwire.AppendEmptyQuery(c.out)
		return nil
	case !p.executed:
		a, refused := c.execute(p.command)
		if refused != nil {
			return refused
		}
		p.executed, p.answer = true, a
	case p.answer.columns == nil:
		return consoleError(stateNotInState, fmt.Sprintf("portal %q cannot be run again", quoted(string(name))))
	}
	c.fetch(&p.answer, p.formats, limit)
	return nil
}

func (c *console) close(body []byte) error {
	prepared, name, err := pgwire.TargetFields(pgwire.Close, body)
	if err != nil {
		return err
	}
	if prepared {
		delete(c.statements, string(name))
	} else {
		delete(c.portals, string(name))
	}
	c.out = pgwire.AppendCloseComplete(c.out)
	return nil
}
