package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
)

// ALPN is the protocol of gRPC on the node-to-node port.
const ALPN = "h2"

// caller is who is at the other end of a connection, as its certificate says. It
// travels as gRPC's AuthInfo.
type caller struct {
	credentials.CommonAuthInfo
	kind string // pki.Node, pki.Operator; empty without a certificate
	name string
	key  armor.Digest // SPKI of its certificate
	conn *tls.Conn    // nil on a Unix socket
}

// AuthType names the scheme to gRPC.
func (caller) AuthType() string { return "armor" }

// handshaken are gRPC credentials for connections whose TLS handshake is over and
// whose peer was verified by whoever made them. They take the connection as it is and
// note who is there.
type handshaken struct{}

func (handshaken) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	who, err := callerOf(conn)
	return conn, who, err
}

func (handshaken) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	who, err := callerOf(conn)
	return conn, who, err
}

func (handshaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (handshaken) Clone() credentials.TransportCredentials { return handshaken{} }

// OverrideServerName is deprecated and means nothing here.
func (handshaken) OverrideServerName(string) error { return nil }

// callerOf reads who is at the other end. A connection without TLS is refused; one
// without a certificate has neither kind nor name.
func callerOf(conn net.Conn) (caller, error) {
	secured, ok := conn.(*tls.Conn)
	if !ok || !secured.ConnectionState().HandshakeComplete {
		return caller{}, fmt.Errorf("%w: a connection without a TLS handshake", armor.ErrDenied)
	}
	who := caller{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, conn: secured}
	chain := secured.ConnectionState().PeerCertificates
	if len(chain) == 0 {
		return who, nil
	}
	id, err := pki.URIIdentity(chain[0])
	if err != nil {
		return caller{}, fmt.Errorf("peer certificate: %w", err)
	}
	_, who.kind, who.name, err = pki.ParsePeerIdentity(id)
	who.key = pki.SPKI(chain[0])
	return who, err
}
