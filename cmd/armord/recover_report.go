package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cluster"
)

// recoverReport is what people read before and after a recovery.
type recoverReport struct {
	recovery  *cluster.Recovery
	node      armor.NodeID
	config    string
	now       time.Time
	answering map[armor.NodeID]bool
}

const (
	maxUnsure    = 20  // commands that are listed
	maxUnsureHas = 100 // bytes of what one is about
)

// write says what this disk has, and what becomes of it.
func (p recoverReport) write(out io.Writer) error {
	r := p.recovery
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fact := func(name, format string, args ...any) { fmt.Fprintf(t, name+":\t"+format+"\n", args...) }
	before, after := r.Before, r.After
	fact("cluster", "%s (%s), era %s", before.Cluster.Name, before.Cluster.ID, before.Cluster.Era)
	fact("this disk", "entry %d of term %d; revision %d", r.Index, r.Term, before.Revision)
	fact("log time", "%s", p.timeWords())
	for _, u := range p.listedUnsure() {
		fact("perhaps never committed", "%s", u)
	}
	own, _ := after.Members.Get(string(p.node))
	fact("goes on", "node %s at %s, certificate %s", p.node, own.PeerAddress, p.goodWords(after, own.Certificate))
	for m := range before.Members.Values() {
		if m.ID != p.node {
			fact("is removed", "node %s at %s: %s", m.ID, m.PeerAddress, p.answerWords(m.ID))
		}
	}
	for _, w := range after.Withheld() {
		if w.Node != p.node {
			fact("is withheld", "%d server connections of pool %s, until node %s has none of them in PostgreSQL", w.Count, w.Pool, w.Node)
		}
	}
	for o := range after.Operators.Values() {
		fact("operator", "%s (%s), certificate %s", o.Name, roleWords(o), p.goodWords(after, o.Certificate))
	}
	fact("revoked", "%d, and the keys of the nodes that are removed", before.Revocations.Len())
	return t.Flush()
}

func (p recoverReport) timeWords() string {
	before, after := p.recovery.Before.Time, p.recovery.After.Time
	words := fmt.Sprintf("%s, %s ago", stampOf(before), p.now.Sub(before).Round(time.Second))
	if before.After(p.now) {
		words = fmt.Sprintf("%s, IN THE FUTURE by %s", stampOf(before), before.Sub(p.now).Round(time.Second))
	}
	switch {
	case after.Before(before):
		words += "; taken back to " + stampOf(after)
	case before.After(p.now.Add(armor.RequestWindow)):
		words += ": changes will be refused until then; if this machine's clock is right, --mend-time takes it back"
	}
	return words
}

// listedUnsure words the commands that may never have been committed.
func (p recoverReport) listedUnsure() (words []string) {
	all := p.recovery.Unsure
	for i, u := range all {
		if i == maxUnsure {
			return append(words, fmt.Sprintf("and %d more", len(all)-i))
		}
		words = append(words, fmt.Sprintf("%d: %s by %s %s", u.Index, u.Request.Command.Kind(), u.Request.Principal,
			armor.Objects(u.Request.Command, maxUnsureHas)))
	}
	return words
}

func (p recoverReport) goodWords(s *armor.State, c armor.Certificate) string {
	if r, revoked := s.RevokesOwn(c); revoked {
		return "REVOKED (" + r.Selector.String() + ")"
	}
	if p.now.After(c.NotAfter) {
		return "ENDED at " + stampOf(c.NotAfter)
	}
	return "good until " + stampOf(c.NotAfter)
}

func (p recoverReport) answerWords(id armor.NodeID) string {
	if p.answering[id] {
		return "SOMEBODY ANSWERS THERE: stop it for good first"
	}
	return "nobody answers there"
}

func roleWords(o armor.Operator) string {
	var words []string
	for _, role := range o.Roles {
		words = append(words, string(role))
	}
	return strings.Join(words, ", ")
}

// writePlan ends a dry run.
func (p recoverReport) writePlan(out io.Writer, o recoverOptions) error {
	command := "armord recover --config " + o.config
	if o.mendTime {
		command += " --mend-time"
	}
	_, err := fmt.Fprintf(out, `
Nothing was changed. What may be lost: every change, revocations too, that other nodes acknowledged and this disk does
not have. If another disk of the cluster is left, run this there as well, and go on where the term of "this disk" is the
latest and, of equal terms, the entry. Then, with the other nodes stopped for good:

  %s --yes
`, command)
	return err
}

// writeDone ends a recovery.
func (p recoverReport) writeDone(out io.Writer, kept string) error {
	after := p.recovery.After
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("\nDone: era %d begins at revision %d. The old Raft folder is kept as\n  %s\nNext:", after.Cluster.Era.Number, after.Revision, kept)
	say("  start this node as ever; it serves once its former lease is over, within seconds: armorctl status")
	say("  what was revoked after %s and is not in armorctl revocation list: revoke it again", stampOf(p.recovery.Before.Time))
	for m := range p.recovery.Before.Members.Values() {
		if m.ID != p.node {
			say("  armorctl join-token create %s > %s.token   # then start it with an empty dataDir and that token", m.ID, m.ID)
			say("  armorctl node approve %s --peer-ca DIR", m.ID)
		}
	}
	for _, w := range withheldNodes(after) {
		say("  armorctl node remove %s --shares-settled   # only where PostgreSQL cannot be asked, and %s surely has nothing open there", w, w)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// withheldNodes are the removed nodes that may have server connections.
func withheldNodes(s *armor.State) []armor.NodeID {
	var nodes []armor.NodeID
	for _, w := range s.Withheld() {
		if s.Tombstones.Has(string(w.Node)) {
			nodes = append(nodes, w.Node)
		}
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

func stampOf(t time.Time) string { return t.UTC().Format(time.RFC3339) }
