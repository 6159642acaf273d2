package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/armordb/armordb/chaos/site"
)

// loadPatience is how long a client of the load waits for any one answer: it queues with
// many others, on a machine that may be busy, and nothing is broken on purpose.
const loadPatience = time.Minute

// loader is one client of the load. It does one thing after the other, by chance, and
// records what came of each.
type loader struct {
	workload *workload
	app      site.Client
	name     string
	database string
	mode     mode
	random   *rand.Rand
	asked    int // requests, to tell one from the other

	conn     *pgconn.PgConn // nil between two sessions
	node     *site.Node
	left     int  // things to do in this session; counts in session mode
	listens  bool // in this session
	prepared bool // the statement that bears every client's name for it
	tenant   string
}

// mode is a set of pool modes.
type mode int

const (
	inSession mode = 1 << iota
	inTransaction
	inStatement
	inAny = inSession | inTransaction | inStatement
	// inBlocks are the modes that have transaction blocks.
	inBlocks = inSession | inTransaction
)

func newLoader(w *workload, app site.Client, id int) *loader {
	l := &loader{
		workload: w, app: app, name: fmt.Sprintf("c%d", id), database: site.AppDatabase, mode: inTransaction,
		random: rand.New(rand.NewPCG(w.seed, uint64(id)+1)),
	}
	switch id % 10 {
	case 6, 7:
		l.database, l.mode = site.AppDatabase+"_session", inSession
	case 8, 9:
		l.database, l.mode = site.AppDatabase+"_statement", inStatement
	}
	if id%2 == 0 {
		l.tenant = l.name
	}
	return l
}

// run goes on until ctx ends; what it has begun it brings to its end.
func (l *loader) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := l.turn(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		site.Sleep(ctx, time.Duration(l.random.Int64N(int64(20*time.Millisecond))))
	}
	l.leave(context.WithoutCancel(ctx))
	return nil
}

// turn opens a session if there is none, or does one thing in it.
func (l *loader) turn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, loadPatience)
	defer cancel()
	if l.conn == nil || l.conn.IsClosed() {
		return l.login(ctx)
	}
	if l.left--; l.left <= 0 {
		l.leave(ctx)
		return nil
	}
	l.pick()(l, ctx)
	return nil
}

// login opens a session on a node and looks at what is in it.
func (l *loader) login(ctx context.Context) error {
	nodes := l.workload.cluster.Nodes
	l.node = nodes[l.random.IntN(len(nodes))]
	config, err := l.app.Config(l.node, l.database, site.AppRole)
	if err != nil {
		return err
	}
	config.RuntimeParams["application_name"] = l.name
	if l.tenant != "" {
		config.RuntimeParams["chaos.tenant"] = l.tenant
	}
	config.OnNotification = l.notified
	l.listens, l.prepared, l.left = false, false, 1+l.random.IntN(100)
	if l.mode == inSession {
		l.left = 1 + l.random.IntN(8)
	}
	l.ask(func(nonce string) (string, error) {
		l.conn, err = pgconn.ConnectConfig(ctx, config)
		return nonce, err
	})
	if l.conn != nil {
		look(l, ctx)
	}
	return nil
}

// leave says goodbye.
func (l *loader) leave(ctx context.Context) {
	if l.conn != nil {
		site.CloseConn(ctx, l.conn)
	}
	l.conn = nil
}

// breakOff resets the connection, and records that.
func (l *loader) breakOff(ctx context.Context, how string) {
	now := l.workload.history.Now()
	l.workload.history.Add(Event{Kind: KindFault, Subject: l.name + " " + how, Node: l.node.Name, Start: now, End: now})
	reset(l.conn)
	// pgconn still has its own side to close, of a socket that is gone.
	l.leave(ctx)
}

// reset closes the TCP connection below TLS, so that the other side reads a reset.
func reset(conn *pgconn.PgConn) {
	if tcp, ok := conn.Conn().(interface{ NetConn() net.Conn }).NetConn().(*net.TCPConn); ok {
		tcp.SetLinger(0)
		tcp.Close()
	}
}

func (l *loader) nonce() string {
	l.asked++
	return fmt.Sprintf("%s-%d", l.name, l.asked)
}

// ask records one request: how is given the name of it and returns the name that was
// read from its answer.
func (l *loader) ask(how func(nonce string) (string, error)) {
	l.record(KindReply, l.nonce(), how)
}

func (l *loader) record(kind Kind, nonce string, how func(nonce string) (string, error)) Outcome {
	e := Event{Kind: kind, Subject: nonce, Node: l.node.Name, Start: l.workload.history.Now()}
	got, err := how(nonce)
	e.End = l.workload.history.Now()
	if e.Outcome, e.SQLState, e.Detail = verdict(err); e.Outcome == OK {
		e.Got = got
	}
	l.workload.history.Add(e)
	return e.Outcome
}

// notified is called when a notification has come.
func (l *loader) notified(_ *pgconn.PgConn, n *pgconn.Notification) {
	if !l.listens {
		l.state("a notification of " + n.Channel)
	}
}

// state records a look at the session.
func (l *loader) state(foreign string) {
	now := l.workload.history.Now()
	l.workload.history.Add(Event{Kind: KindState, Subject: l.name, Node: l.node.Name, Start: now, End: now, Outcome: OK, Got: foreign})
}

// act is one thing to do.
type act func(l *loader, ctx context.Context)

// acts are all of them: how often, in which modes.
var acts = []struct {
	weight int
	mode   mode
	do     act
}{
	{8, inAny, askSimple},
	{8, inAny, askWithParameter},
	{10, inAny, askPrepared},
	{4, inAny, askPipelined},
	{3, inAny, askSeveral},
	{3, inAny, askCopy},
	{2, inAny, askLarge},
	{3, inAny, askSum},
	{3, inAny, askFailing},
	{5, inAny, askAndCancel},
	{8, inTransaction | inStatement, look},
	{4, inAny, stain},
	{1, inAny, notify},
	{8, inBlocks, transferInBlock},
	{5, inAny, transferAtOnce},
	{4, inAny, transferPipelined},
	{3, inAny, copyIn},
	{3, inBlocks, rollBack},
	{2, inBlocks, commitFailed},
	{2, inAny, breakIdle},
	{2, inAny, breakQuery},
	{2, inAny, breakMessage},
	{2, inAny, breakCopy},
	{2, inBlocks, breakBlock},
	{2, inBlocks, breakCommit},
}

// pick chooses one that the pool's mode allows.
func (l *loader) pick() act {
	total := 0
	for _, a := range acts {
		if a.mode&l.mode != 0 {
			total += a.weight
		}
	}
	n := l.random.IntN(total)
	for _, a := range acts {
		if a.mode&l.mode == 0 {
			continue
		}
		if n -= a.weight; n < 0 {
			return a.do
		}
	}
	panic("the weights do not add up")
}
