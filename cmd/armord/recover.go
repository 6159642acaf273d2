package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cluster"
	"github.com/armordb/armordb/cmd/armord/config"
	"github.com/armordb/armordb/rpc"
)

// recoverOptions are the flags of recover.
type recoverOptions struct {
	config               string
	yes, mendTime, force bool
}

// recoverCommand has one node of a cluster that lost its quorum for good go on alone.
func recoverCommand() *cobra.Command {
	var o recoverOptions
	cmd := &cobra.Command{
		Use:   "recover --config FILE",
		Short: "go on with this node alone, when a quorum is lost for good",
		Long: `Makes a cluster of this one node from what its disk has, when more than half of the voters
will never come back: a new era of the cluster, with its trust, revocations, policy and
operators, in which every other node is removed and joins anew. Nobody has more access by
it. It also takes back log time that went wrong where nobody can do so with
armorctl cluster mend-time any more.

The node must be stopped. Without --yes nothing is changed: it says what would be, and
what may be lost. Run it so on each machine whose disk is left, and go on where the log
is longest.

Stop the other nodes for good first. Two halves of a cluster that both go on are two
clusters, and a revocation in one is none in the other.`,
		Example: "  armord recover --config /etc/armor/armord.yaml",
		Args:    noArgs,
	}
	path := configFlag(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.yes, "yes", false, "do it")
	f.BoolVar(&o.mendTime, "mend-time", false, "take log time, which is in the future, back to this machine's clock")
	f.BoolVar(&o.force, "force", false, "do it though other members of the cluster answer")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.config = *path
		return recoverNode(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	return cmd
}

func recoverNode(ctx context.Context, o recoverOptions, out, logs io.Writer) error {
	cfg, err := config.Load(o.config)
	if err != nil {
		return err
	}
	if _, err := os.Stat(cfg.DataDir); err != nil {
		return fmt.Errorf("look at the data directory: %w", err)
	}
	c := home{cfg, o.config}
	if err := c.SettlePorts(); err != nil {
		return err
	}
	r, err := c.openRecovery(o.mendTime, logs)
	if err != nil {
		return err
	}
	return errors.Join(c.carryOut(ctx, o, r, out), r.Close())
}

// carryOut says what a recovery is, and does it if that is wanted.
func (c home) carryOut(ctx context.Context, o recoverOptions, r *cluster.Recovery, out io.Writer) error {
	report := recoverReport{
		recovery: r, node: armor.NodeID(c.Node), config: o.config, now: time.Now(), answering: answering(ctx, r.Before, c.Node),
	}
	if err := report.write(out); err != nil {
		return err
	}
	switch {
	case !o.yes:
		return report.writePlan(out, o)
	case len(report.answering) > 0 && !o.force:
		return fmt.Errorf("%w: other members answer: stop them for good, or there will be two clusters; --force if somebody else answers there",
			armor.ErrConflict)
	}
	kept, err := r.Commit()
	if err != nil {
		return fmt.Errorf("go on with node %s alone: %w", c.Node, err)
	}
	return report.writeDone(out, kept)
}

// openRecovery reads this node's disk, and what it knows of itself beside it.
func (c home) openRecovery(mendTime bool, logs io.Writer) (*cluster.Recovery, error) {
	own, err := c.readMembership()
	if err != nil {
		return nil, err
	}
	member := armor.Member{
		ID: armor.NodeID(c.Node), PeerAddress: c.Peer.Advertise, ClientAddress: c.Client.Advertise, OpsAddress: c.Ops.Advertise,
	}
	if member.Certificate, member.Chain, err = c.ownCertificate(); err != nil {
		return nil, err
	}
	return cluster.OpenRecovery(cluster.RecoverConfig{
		DataDir: c.DataDir, Cluster: own.ClusterID, Member: member, EraID: string(rpc.NewRequestID()), Now: time.Now(), MendTime: mendTime,
		Logger: newLogger(c.Log, levelOf(c.Log), logs, armor.NodeID(c.Node)),
	})
}

// ownCertificate is this node's, also one that has ended, since nodes know each other by their
// keys; it must be the peer CA's, for this node.
func (c home) ownCertificate() (armor.Certificate, [][]byte, error) {
	cas, err := readCertificates(c.Peer.CAFile)
	if err != nil {
		return armor.Certificate{}, nil, fmt.Errorf("peer CA: %w", err)
	}
	chain, err := readCertificates(c.Peer.CertFile)
	if err != nil {
		return armor.Certificate{}, nil, fmt.Errorf("certificate of this node: %w", err)
	}
	own, err := pki.VerifyKnownPeer(cas, c.Cluster, chain, time.Now())
	if err == nil && (own.Kind != pki.Node || own.Name != c.Node) {
		err = fmt.Errorf("%w: it is not for node %s", armor.ErrInvalid, c.Node)
	}
	if err != nil {
		return armor.Certificate{}, nil, fmt.Errorf("%s: %w", c.Peer.CertFile, err)
	}
	var ders [][]byte
	for _, cert := range chain {
		ders = append(ders, cert.Raw)
	}
	return own.Leaf, ders, nil
}

// answerPatience is how long another member may take to answer a knock.
const answerPatience = 2 * time.Second

// answering knocks at the other members' doors, and returns those at which somebody is.
func answering(ctx context.Context, s *armor.State, self string) map[armor.NodeID]bool {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	var mu sync.Mutex // guards there
	there := map[armor.NodeID]bool{}
	var knocking sync.WaitGroup
	for m := range s.Members.Values() {
		if string(m.ID) == self {
			continue
		}
		knocking.Go(func() {
			var dialer net.Dialer
			conn, err := dialer.DialContext(ctx, "tcp", m.PeerAddress)
			if err != nil {
				return
			}
			conn.Close()
			mu.Lock()
			defer mu.Unlock()
			there[m.ID] = true
		})
	}
	knocking.Wait()
	return there
}
