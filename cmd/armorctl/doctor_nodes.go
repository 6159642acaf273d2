package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/armordb/armordb/armor"
)

// heldByNodes are the certificates that only the nodes know of. What is the same on several is one.
func (h horizon) heldByNodes(nodes []armor.NodeStatus) (found []finding) {
	for _, n := range nodes {
		if n.Unreachable != "" {
			continue // wrongNow says so
		}
		for _, c := range n.Certificates[:min(len(n.Certificates), armor.MaxHeld+1)] {
			f, news := h.ending(aboutHeld(n.Node, c), c.NotBefore, c.NotAfter)
			if c.Fault != "" {
				f.Severity, news = wrongNow, true
				f.Stops = c.Fault + ": " + f.Stops
			}
			if c.NotAfter.IsZero() {
				f.Ends = ""
			}
			if news {
				found = joined(found, f, n.Node)
			}
		}
		switch last := len(n.Certificates) - 1; {
		case n.MoreCertificates > 0 && last >= 0 && n.Certificates[last].NotAfter.Before(h.until):
			found = joined(found, finding{Severity: unasked, Kind: kindSecret, Stops: fmt.Sprintf("%d more secrets end later than those that it tells of",
				n.MoreCertificates), Mend: "renew what is listed, and ask again"}, n.Node)
		case last < 0:
			found = joined(found, finding{Severity: unasked, Kind: kindServer, Stops: "it does not tell when its certificates end: it runs " + n.Version,
				Mend: "run this release on it"}, n.Node)
		}
	}
	return found
}

// joined adds a finding of a node, to another node's if that is the same.
func joined(found []finding, f finding, node armor.NodeID) []finding {
	i := slices.IndexFunc(found, func(g finding) bool {
		return g.Severity == f.Severity && g.Kind == f.Kind && g.Name == f.Name && g.ends.Equal(f.ends) && g.Stops == f.Stops && g.Mend == f.Mend
	})
	if i < 0 {
		f.Nodes = []armor.NodeID{node}
		return append(found, f)
	}
	found[i].Nodes = append(found[i].Nodes, node)
	return found
}

// aboutHeld says what stops when a node's certificate ends.
func aboutHeld(node armor.NodeID, c armor.HeldCertificate) finding {
	pools := strings.Join(c.Pools, ", ")
	if len(c.Pools) == armor.MaxHeldPools {
		pools += " …"
	}
	switch c.Kind {
	case armor.HeldServer:
		return finding{Kind: kindServer, Stops: "clients that verify the server refuse this node",
			Mend: "put a new pair in the place of client.certFile and client.keyFile of armord.yaml there"}
	case armor.HeldClient:
		return finding{Kind: kindSecret, Name: c.Name, Stops: "PostgreSQL refuses the logins of pools " + pools,
			Mend: fmt.Sprintf("put %s.crt and %s.key, mode 0600, into secretsDir there", c.Name, c.Name)}
	default:
		return finding{Kind: kindSecretCA, Name: c.Name, Stops: "PostgreSQL's certificate is refused: no logins of pools " + pools,
			Mend: fmt.Sprintf("put %s.pem with the CA in force into secretsDir there", c.Name)}
	}
}

// wrongNow is what does not do what it should, whatever ends when.
func (h horizon) wrongNow(s *armor.State, nodes []armor.NodeStatus) (found []finding) {
	views := nodeViews(nodes)
	wrong := func(node armor.NodeID, kind, name, stops, mend string) {
		found = joined(found, finding{Severity: wrongNow, Kind: kind, Name: name, Stops: stops, Mend: mend}, node)
	}
	for _, v := range views {
		switch {
		case v.Unreachable != "":
			found = append(found, finding{Severity: unasked, Kind: kindMember, Name: string(v.Node), Stops: "not asked: " + v.Unreachable,
				Mend: fmt.Sprintf("look at that machine; armorctl node replace %s if it is lost", v.Node)})
			continue
		case !v.Fresh:
			wrong(v.Node, kindMember, "", "it cannot prove that its trust state is fresh, and serves nobody", "armorctl status: is there a quorum, does it reach the others?")
		}
		if advice := v.clockAdvice(); advice != "" {
			wrong(v.Node, kindClock, "", fmt.Sprintf("it is %s from the voters' median; beyond 5s it does not lead", v.clockWords()), "that machine's time service")
		}
		for _, p := range v.Pools {
			if p.NotReady != "" {
				wrong(v.Node, kindPool, p.Pool, "clients are refused there: "+p.NotReady, "mend what it names on that node; armorctl pool show "+poolName(p.Pool))
			}
		}
	}
	for key := range s.Pools.All() {
		for _, w := range withheldOf(key, views) {
			found = append(found, finding{Severity: wrongNow, Kind: kindShare, Name: key,
				Stops: fmt.Sprintf("%d server connections are kept for node %s: %s", w.Count, w.Node, w.Why),
				Mend:  "docs/operate.md, a removed node's shares"})
		}
	}
	return append(found, h.wrongOfAll(s, nodes)...)
}

func poolName(key string) string {
	_, name, _ := strings.Cut(key, "/")
	return name
}

// wrongOfAll is what is wrong with the cluster as a whole.
func (h horizon) wrongOfAll(s *armor.State, nodes []armor.NodeStatus) (found []finding) {
	if answering, of := armor.VotersAnswering(s, nodes); answering <= of/2 {
		found = append(found, finding{Severity: wrongNow, Kind: kindCluster, Name: s.Cluster.Name,
			Stops: fmt.Sprintf("no quorum: %d of %d voters answer; nothing can be changed, and soon nobody is served", answering, of),
			Mend:  "bring back nodes that did not answer"})
	}
	if s.Time.After(h.now.Add(armor.RequestWindow)) {
		found = append(found, finding{Severity: wrongNow, Kind: kindCluster, Name: s.Cluster.Name,
			Stops: "log time is in the future, so that changes are refused: " + stamp(s.Time), Mend: "armorctl cluster mend-time"})
	}
	return found
}
