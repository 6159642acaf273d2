package armor

import (
	"fmt"
	"strings"
	"time"
)

// Objects names what a command is about, in words for a log line: at most most bytes, and
// nothing that is a secret.
func Objects(c Command, most int) string {
	names := objects(c)
	var b strings.Builder
	for i, name := range names {
		if i > 0 && b.Len()+len(name) > most {
			fmt.Fprintf(&b, ", and %d more", len(names)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(name[:min(len(name), most)])
	}
	return strings.ToValidUTF8(b.String(), "\uFFFD")
}

func objects(c Command) []string {
	switch c := c.(type) {
	case Bootstrap:
		return []string{"cluster " + c.Cluster.Name, "node " + string(c.Member.ID), "operator " + c.Operator.Name}
	case PutEnvironment:
		return []string{c.Environment.Ref().String()}
	case PutAnchor:
		return []string{fmt.Sprintf("trust anchor %s of environment %s", c.Anchor.Name, c.Anchor.Environment)}
	case RetireAnchor:
		return retired(c)
	case StartRotation:
		return []string{"environment " + c.Environment, "from trust anchor " + c.Old.String(), "to " + c.New.String()}
	case MoveRotation:
		return []string{"environment " + c.Environment, "to phase " + string(c.To)}
	case RecordUses:
		return []string{fmt.Sprintf("%d uses of trust anchors", len(c.Uses))}
	case RegisterCertificate:
		return []string{fmt.Sprintf("certificate %s of %s", c.Record.Certificate.ID.Serial, c.Record.Certificate.Identity)}
	case Revoke:
		return append([]string{"reason " + string(c.Reason)}, selectorNames(c.Selectors)...)
	case StageRevocations:
		return append([]string{fmt.Sprintf("part %d of batch %s", c.Part, c.Batch)}, selectorNames(c.Selectors)...)
	case RevokeStaged:
		return []string{"reason " + string(c.Reason), fmt.Sprintf("batch %s of %d parts", c.Batch, c.Parts)}
	case Apply:
		return configured(c)
	case PutOperator:
		return []string{fmt.Sprintf("operator %s with roles %v", c.Operator.Name, c.Operator.Roles)}
	case RescueOperator:
		return []string{fmt.Sprintf("operator %s with roles %v", c.Operator.Name, c.Operator.Roles)}
	case PutPeerCA:
		return []string{"peer CA " + c.Certificate.Fingerprint.Short()}
	case RetirePeerCA:
		return []string{"peer CA " + c.Fingerprint.Short()}
	case MendTime:
		return []string{"log time " + c.From.UTC().Format(time.RFC3339)}
	case PruneCertificates:
		return []string{"certificates that ended before " + c.EndedBefore.UTC().Format(time.RFC3339)}
	case SetShares:
		return []string{"shares of pool " + c.Pool}
	case PruneExpired:
		return []string{"what ended before " + c.At.UTC().Format(time.RFC3339)}
	default:
		return nodesOf(c)
	}
}

func retired(c RetireAnchor) []string {
	if c.Undo {
		return []string{"trust anchor " + c.Anchor.String(), "undone"}
	}
	return []string{"trust anchor " + c.Anchor.String()}
}

// nodesOf names the nodes of the commands that are about nodes.
func nodesOf(c Command) (names []string) {
	switch c := c.(type) {
	case CreateJoinToken:
		names = []string{"token for node " + string(c.Token.Node)}
	case RequestJoin:
		names = []string{"node " + string(c.Request.Node)}
	case ApproveJoin:
		names = []string{"node " + string(c.Node)}
	case RemoveMember:
		names = []string{"node " + string(c.Node)}
	case RenewMember:
		names = []string{"node " + string(c.Node), "certificate " + c.Certificate.ID.Serial}
	case ReplaceMember:
		names = []string{"node " + string(c.Node), "token for node " + string(c.Token.Node)}
	case SetMemberAddresses:
		names = []string{"node " + string(c.Node)}
	case BuryTombstones:
		for _, n := range c.Nodes {
			names = append(names, "node "+string(n))
		}
	}
	return names
}

// configured names the objects of a change of the configuration.
func configured(c Apply) (names []string) {
	for _, e := range c.Environments {
		names = append(names, e.Ref().String())
	}
	for _, d := range c.Databases {
		names = append(names, d.Ref().String())
	}
	for _, p := range c.Pools {
		names = append(names, p.Ref().String())
	}
	for _, i := range c.Identities {
		names = append(names, i.Ref().String())
	}
	for _, gone := range c.Delete {
		names = append(names, "deleted "+gone.String())
	}
	return names
}

func selectorNames(selectors []Selector) []string {
	names := make([]string, len(selectors))
	for i, s := range selectors {
		names[i] = s.String()
	}
	return names
}
