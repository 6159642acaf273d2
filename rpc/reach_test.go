package rpc

import (
	"context"
	"crypto/x509"
	"net"
	"testing"

	"github.com/armordb/armordb/armor"
)

// TestStoppedNodeIsPassedOver asks a node first that takes connections and says nothing, and
// gives the call no longer than one patient try at connecting would take.
func TestStoppedNodeIsPassedOver(t *testing.T) {
	l := newLab(t, 1)
	stopped, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stopped.Close()
	c, err := Open(ClientConfig{
		Addresses: []string{stopped.Addr().String(), l.nodes["n1"].address}, Cluster: labCluster,
		Certificate: l.enrol("nora", armor.NodeAdmin), PeerCAs: []*x509.Certificate{l.ca},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), farConnect)
	defer cancel()
	if _, err := c.Nodes(ctx); err != nil {
		t.Fatal(err)
	}
}
