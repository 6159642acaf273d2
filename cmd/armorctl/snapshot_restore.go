package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
	"github.com/armordb/armordb/fsm/saved"
	"github.com/armordb/armordb/rpc"
)

// restoreOptions are the flags of snapshot restore.
type restoreOptions struct {
	signing
	socket, lostSince string
	revocations       []string
	mendTime, force   bool
}

func (a *app) snapshotRestoreCommand() *cobra.Command {
	var o restoreOptions
	cmd := &cobra.Command{
		Use:   "restore FILE --socket PATH --peer-ca DIR --revocations FILE",
		Short: "have a new node go on from a saved state, when no node is left",
		Long: `Makes a node that waits to be initialised the first of a new era of the cluster whose state was saved. It
may have another name and other addresses. All former nodes are removed, and their keys revoked; the others join anew.
It runs on the machine of the node and speaks to it over its admin socket, as init does.

What was revoked after the state was saved is not revoked in it. So the newest revocation export is asked for
(--revocations, repeatable), and its revocations are in force from the first moment. If there is none, the time at which
the state was saved has to be typed: --revocations-lost-since.

It is refused while a node of the cluster answers by a context that is known here: while a node's disk is left,
armord recover goes on from that.`,
		Example: "  armorctl snapshot restore acme.snapshot --socket /var/lib/armor/admin.sock --peer-ca ./peer-ca --revocations revoked.jsonl",
		Args:    exactly("FILE"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.restoreState(cmd.Context(), args[0], o) },
	}
	signingFlags(cmd, &o.signing)
	f := cmd.Flags()
	f.StringVar(&o.socket, "socket", "", "the admin `socket` of the node (adminSocket in its configuration)")
	f.StringArrayVar(&o.revocations, "revocations", nil, "a `FILE` of revocation export; repeatable")
	f.StringVar(&o.lostSince, "revocations-lost-since", "", "the `time` at which the state was saved, as snapshot inspect shows it: what was revoked later is lost")
	f.BoolVar(&o.mendTime, "mend-time", false, "take log time from the node's clock, where the state's is in the future")
	f.BoolVar(&o.force, "force", false, "also while a node of the cluster answers: then there are two clusters")
	return cmd
}

// restoredView is the answer of snapshot restore.
type restoredView struct {
	File        string       `json:"file"`
	Cluster     string       `json:"cluster"`
	ClusterID   string       `json:"clusterId"`
	Node        armor.NodeID `json:"node"`
	Address     string       `json:"address"`
	Saved       string       `json:"savedAt"`
	Revision    uint64       `json:"revision"`    // of the state in the file
	Revocations int          `json:"revocations"` // in the file's state
	Added       int          `json:"added"`       // by --revocations
}

func (a *app) restoreState(ctx context.Context, path string, o restoreOptions) error {
	if o.socket == "" || o.peerCA == "" {
		return &fault.Usage{Err: errors.New("snapshot restore needs --socket, the node's admin socket, and --peer-ca, the folder of the CA of nodes and operators")}
	}
	ca, lifetime, err := a.signer(ctx, "snapshot restore", o.signing)
	if err != nil {
		return err
	}
	f, err := openState(path)
	if err != nil {
		return err
	}
	defer f.Close()
	state, cas, err := a.stateUnder(f, ca)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	revoked, err := o.unrevoked(f, state)
	if err != nil {
		return err
	}
	if err := a.livesOn(ctx, state.Cluster, o.force); err != nil {
		return err
	}
	client, err := rpc.OpenInit(o.socket)
	if err != nil {
		return err
	}
	defer client.Close()
	asking, cancel := a.within(ctx, patience)
	defer cancel()
	node, err := client.Identify(asking)
	if err != nil {
		return fmt.Errorf("ask the node at %s who it is: %w", o.socket, err)
	}
	cert, err := ca.Node(state.Cluster.Name, node.Node, node.CSR, lifetime)
	if err != nil {
		return err
	}
	v := restoredView{File: path, Cluster: state.Cluster.Name, ClusterID: state.Cluster.ID, Node: node.Node, Address: node.PeerAddress,
		Saved: stamp(f.Manifest.At), Revision: state.Revision, Revocations: state.Revocations.Len(), Added: len(revoked)}
	a.say("node %s goes on alone from revision %d of cluster %s, saved at %s; its %d former nodes are removed for good", v.Node, v.Revision,
		v.Cluster, v.Saved, state.Members.Len())
	if err := a.confirm(ctx, v.Cluster); err != nil {
		return err
	}
	return a.sendRestored(ctx, client, v, rpc.RestoreData{
		Chain: [][]byte{cert.Raw, ca.Cert.Raw}, GossipKey: newGossipKey(), PeerCAs: cas, MendTime: o.mendTime,
	}, revoked)
}

func (a *app) sendRestored(ctx context.Context, client *rpc.InitClient, v restoredView, d rpc.RestoreData, revoked []armor.Revocation) error {
	file, err := os.Open(v.File)
	if err != nil {
		return err
	}
	defer file.Close()
	ctx, cancel := a.within(ctx, savePatience)
	defer cancel()
	if err := client.Restore(ctx, d, revoked, file); err != nil {
		return fmt.Errorf("restore node %s: %w", v.Node, err)
	}
	a.say("next:\n  armorctl context set NAME --addr %s, for a context of the cluster, or context add\n"+
		"  armorctl status\n  armorctl join-token create NODE, for each other node, with an empty data directory", v.Address)
	return a.show(answer{data: v, tables: []table{facts("",
		[2]string{"cluster", v.Cluster + " (" + v.ClusterID + ")"}, [2]string{"first node", string(v.Node) + " at " + v.Address},
		[2]string{"state", fmt.Sprintf("revision %d, saved at %s", v.Revision, v.Saved)},
		[2]string{"revocations", fmt.Sprintf("%d, and %d that came later or are the same", v.Revocations, v.Added)},
	)}})
}

func newGossipKey() []byte {
	key := make([]byte, 32)
	rand.Read(key)
	return key
}

// stateUnder verifies a saved state with the CA that is to sign its first node and what a context knows, and
// returns which of these are peer CAs of the state, DER.
func (a *app) stateUnder(f *saved.File, ca issue.CA) (state *armor.State, cas [][]byte, err error) {
	known, _, err := a.peerCAsOf("", f.Manifest)
	if err != nil {
		return nil, nil, err
	}
	known = append(slices.DeleteFunc(known, ca.Cert.Equal), ca.Cert)
	if state, err = f.Verify(known); err != nil {
		return nil, nil, foundIn(err)
	}
	if _, err = believed(state, ca); err != nil {
		return nil, nil, err
	}
	return state, slices.DeleteFunc(state.Cluster.PeerCAs(), func(der []byte) bool {
		return !slices.ContainsFunc(known, func(c *x509.Certificate) bool { return bytes.Equal(c.Raw, der) })
	}), nil
}

// unrevoked returns the revocations that come beside the state. A restored state must not give back, by
// an oversight, what was taken away after it was saved.
func (o restoreOptions) unrevoked(f *saved.File, s *armor.State) (all []armor.Revocation, err error) {
	for _, path := range o.revocations {
		head, more, err := revocationsIn(path)
		if err != nil {
			return nil, err
		}
		if head.ClusterID != s.Cluster.ID {
			return nil, fmt.Errorf("%w: %s is of cluster %s (%s), and the state of %s (%s)", armor.ErrInvalid, path,
				head.Cluster, head.ClusterID, s.Cluster.Name, s.Cluster.ID)
		}
		if head.Revision < s.Revision {
			return nil, fmt.Errorf("%w: %s is of revision %d, and the state of %d: it adds nothing", armor.ErrInvalid, path, head.Revision, s.Revision)
		}
		all = append(all, more...)
	}
	saved := stamp(f.Manifest.At)
	switch {
	case len(o.revocations) > 0 && o.lostSince != "":
		return nil, &fault.Usage{Err: errors.New("--revocations-lost-since says that there is no file of --revocations: give one of them")}
	case len(o.revocations) > 0 || o.lostSince == saved:
		return all, nil
	case o.lostSince != "":
		return nil, &fault.Usage{Err: fmt.Errorf("--revocations-lost-since %s: the state was saved at %s", o.lostSince, saved)}
	}
	return nil, fault.Hinted(&fault.Usage{Err: fmt.Errorf("what was revoked after %s, when the state was saved, is not revoked in it", saved)},
		"--revocations FILE, of the newest armorctl revocation export; if there is none: --revocations-lost-since %s", saved)
}

// alivePatience is how long a node of the cluster may take to answer.
const alivePatience = 3 * time.Second

// livesOn refuses to begin another life of a cluster while a node of it answers.
func (a *app) livesOn(ctx context.Context, c armor.Cluster, force bool) error {
	contexts, err := a.loadContexts()
	if err != nil || force {
		return err
	}
	for _, access := range contexts.Contexts {
		if access.ClusterID != c.ID {
			continue
		}
		access.CertFile, access.KeyFile, access.PeerCAFile = contexts.in(access.CertFile), contexts.in(access.KeyFile), contexts.in(access.PeerCAFile)
		if where := a.answersAt(ctx, access); where != "" {
			return fault.Hinted(fmt.Errorf("%w: cluster %s lives: a node answers at %s", armor.ErrConflict, c.Name, where),
				"with a quorum nothing is to be restored; with a node's disk: armord recover; else stop it for good first")
		}
	}
	return nil
}

// answersAt is where a node of the context's cluster answers; empty: nowhere.
func (a *app) answersAt(ctx context.Context, access clusterAccess) string {
	client, err := access.open(a.now())
	if err != nil {
		a.tell("context %s: whether its cluster lives cannot be asked: %v", access.Name, err)
		return ""
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, alivePatience)
	defer cancel()
	if state, err := client.State(ctx, armor.Members); err == nil && state.Cluster.ID != "" {
		return access.Addresses[0]
	}
	return ""
}
