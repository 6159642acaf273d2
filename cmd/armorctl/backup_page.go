package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/armordb/armordb/armor"
)

// backupPage is what a person reads who finds the folder: what is in it, what is not, and
// how to go on.
func backupPage(access clusterAccess, s *armor.State, v savedView, now time.Time) string {
	p := &page{}
	p.line("Backup of the Armor cluster %s (%s)", s.Cluster.Name, s.Cluster.ID)
	p.line("made %s by operator %s; revision %d, newest change %s", stamp(now), access.Operator, s.Revision, stamp(s.Time))
	p.line("%d of %d voters had this very state", v.Agree, v.Voters)
	p.head("What is in it")
	p.item(backupState, "the whole state: trust anchors, inventory, revocations, configuration, members, operators")
	p.item(backupConfig, "the configuration in it, for reading")
	p.item(backupContext, "how armorctl reached the cluster; its operator's key is not here")
	p.item(backupPeerCA, "the peer CA's certificate, by which "+backupState+" is verified")
	p.item(backupOperator, "the operator's certificate, without the key")
	if access.ServerCAFile != "" {
		p.item(backupServerCA, "the CA that clients verify the nodes with")
	}
	p.head("What is NOT in it, and has to be kept apart from it")
	p.line("Whoever has these and this folder has the cluster: keep them in another place, encrypted.")
	p.line("Paths are the defaults; on each node `armord config print` shows its own. DATA is its dataDir (the package's: /var/lib/armor).")
	notOfNodes(p, access, s)
	for m := range s.Members.Values() {
		notOfNode(p, m, secretsOf(s))
	}
	p.head("How to restore")
	p.text(restoring)
	return p.String()
}

// restoring is the shortest way back; docs/operate.md has the others.
var restoring = []string{
	"A node is lost, and the others serve: nothing here is needed. armorctl node replace NODE.",
	"No quorum will come back, and a node's disk is left: armord recover, on that node. Prefer it to this folder: it is newer.",
	"Nothing is left:",
	"  1. armorctl snapshot verify " + backupState + " --peer-ca " + backupPeerCA,
	"  2. armorctl snapshot inspect " + backupState + ": is it what you mean, and how old is it?",
	"  3. A node that kept its disk has states in DATA/saved, which may be newer. Take the newest that verifies.",
	"  4. Put armord.yaml, the secrets and the server's certificate back on the machine of a new first node, and start it.",
	"  5. armorctl snapshot restore " + backupState + " --socket PATH --peer-ca DIR --revocations FILE, of the newest",
	"     armorctl revocation export that you have: what was revoked after the state was saved is not revoked in it.",
	"  6. armorctl context set NAME --addr ADDRESS, for each operator's context.",
	"  7. Let the other nodes join (docs/recover.md).",
}

func notOfNodes(p *page, access clusterAccess, s *armor.State) {
	p.head("  Of the cluster")
	p.item("the peer CA's key", "where --peer-ca points, ca.key in it: without it no node and no operator can be admitted or renewed")
	for t := range s.Anchors.Values() {
		p.item("the key of CA "+t.Name, fmt.Sprintf("ca.key of environment %s: without it no certificate of it can be issued", t.Environment))
	}
	p.item("the server CA's key", "of the certificates that clients see, if that CA is yours")
	p.item("the gossip key", "DATA/peer/gossip.key, the same on all nodes; a cluster that is restored may have a new one")
	for o := range s.Operators.Values() {
		where := "on that operator's machine, with the context file"
		if o.Name == access.Operator {
			where = access.KeyFile
		}
		p.item("the key of operator "+o.Name, where)
	}
}

func notOfNode(p *page, m armor.Member, secrets []string) {
	p.head(fmt.Sprintf("  Of node %s (%s)", m.ID, m.PeerAddress))
	p.item("its configuration", "/etc/armor/armord.yaml")
	p.item("its key and certificate", "DATA/peer/node.key, DATA/peer/node.crt: made anew when it joins anew")
	p.item("what clients see", "DATA/server.key, DATA/server.crt (client.keyFile, client.certFile)")
	for _, name := range secrets {
		p.item("secret", "DATA/secrets/"+name)
	}
}

// secretsOf are the files in each node's secrets folder that the databases name.
func secretsOf(s *armor.State) []string {
	files := map[string]bool{}
	add := func(name armor.SecretName, endings ...string) {
		for _, ending := range endings {
			if name != "" {
				files[string(name)+ending] = true
			}
		}
	}
	for d := range s.Databases.Values() {
		add(d.CA, ".pem")
		add(d.Verifiers, ".verifiers")
		for _, r := range d.Roles {
			add(r.Secret, ".yaml")
			add(r.Certificate, ".crt", ".key")
		}
	}
	return slices.Sorted(maps.Keys(files))
}

// page is a text for people.
type page struct{ strings.Builder }

func (p *page) line(format string, args ...any) {
	p.WriteString(printable([]string{fmt.Sprintf(format, args...)})[0] + "\n")
}

func (p *page) head(text string) {
	p.WriteByte('\n')
	p.line("%s", text)
}

func (p *page) item(what, text string) { p.line("  - %s: %s", what, text) }

func (p *page) text(lines []string) {
	for _, l := range lines {
		p.line("%s", l)
	}
}
