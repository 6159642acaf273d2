package chaos

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"time"

	"github.com/armordb/armordb/chaos/site"
)

// strangerConfig is an identity that may reach nothing.
const strangerConfig = `---
apiVersion: armor/v1
kind: Identity
metadata: {name: stranger, environment: dev}
spec: {id: "spiffe://dev.armor-dev.internal/app/stranger", owner: chaos}
`

// forge makes a client that says what another says of itself, by a CA of its own.
func forge(like site.Client) (site.Client, error) {
	leaf, err := x509.ParseCertificate(like.TLS.Certificates[0].Certificate[0])
	if err != nil {
		return site.Client{}, err
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return site.Client{}, err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nobody's CA"}, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return site.Client{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return site.Client{}, err
	}
	forged := like
	forged.TLS = like.TLS.Clone()
	forged.TLS.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	return forged, nil
}

// intrude knocks at every node with what must not be let in.
func (s *siege) intrude(ctx context.Context) error {
	who := map[string]site.Client{"stranger": s.stranger, "forged": s.forged, "revoked": s.revoked}
	for ctx.Err() == nil {
		for name, client := range who {
			for _, n := range s.cluster.Nodes {
				begun := s.history.Now()
				outcome, state, detail := verdict(client.Ping(context.WithoutCancel(ctx), n))
				s.history.Add(Event{Kind: KindIntruder, Subject: name, Node: n.Name, Start: begun, End: s.history.Now(), Outcome: outcome,
					SQLState: state, Detail: detail})
			}
		}
		site.Sleep(ctx, 500*time.Millisecond)
	}
	return nil
}

// steady is one client with a valid certificate that stays on one node for as long as the
// node lets it.
func (s *siege) steady(ctx context.Context, n *site.Node) error {
	app, err := s.cluster.Demo()
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		begun := s.history.Now()
		conn, err := app.Connect(context.WithoutCancel(ctx), n)
		s.endured(n, "login", begun, err)
		if err != nil {
			site.Sleep(ctx, 200*time.Millisecond)
			continue
		}
		for err == nil && ctx.Err() == nil {
			begun = s.history.Now()
			err = site.Exec(context.WithoutCancel(ctx), conn, "SELECT 1")
			s.endured(n, "query", begun, err)
			site.Sleep(ctx, 100*time.Millisecond)
		}
		site.CloseConn(ctx, conn)
	}
	return nil
}

func (s *siege) endured(n *site.Node, what string, begun time.Duration, err error) {
	outcome, state, detail := verdict(err)
	s.history.Add(Event{Kind: KindSteady, Subject: what, Node: n.Name, Start: begun, End: s.history.Now(), Outcome: outcome,
		SQLState: state, Detail: detail})
}

// nodeWord is what a node says of itself.
type nodeWord struct {
	Node        string  `json:"node"`
	Role        string  `json:"role"`
	Term        uint64  `json:"term"`
	ClockSkewMs float64 `json:"clockSkewMs"`
}

// watch looks at the terms and clocks of the nodes that are judged, again and again.
func (s *siege) watch(ctx context.Context) error {
	for ctx.Err() == nil {
		s.look(context.WithoutCancel(ctx))
		site.Sleep(ctx, time.Second)
	}
	return nil
}

func (s *siege) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	begun := s.history.Now()
	out, err := s.cluster.Armorctl(ctx, "status", "-o", "json")
	var all struct {
		LogTimeAhead bool       `json:"logTimeAhead"`
		LogTime      string     `json:"logTime"`
		Nodes        []nodeWord `json:"nodes"`
	}
	if err == nil || len(out) > 0 { // a silent node makes armorctl exit with a code of its own
		err = json.Unmarshal(out, &all)
	}
	if err != nil {
		return
	}
	if at, err := time.Parse(time.RFC3339Nano, all.LogTime); err == nil {
		ahead := time.Until(at)
		s.history.Add(Event{Kind: KindClock, Subject: logClock, Found: int(ahead.Milliseconds()), Start: begun, End: s.history.Now()})
	}
	for _, n := range all.Nodes {
		if !s.judged(n.Node) || n.Term == 0 {
			continue
		}
		s.history.Add(Event{Kind: KindTerm, Node: n.Node, Found: int(min(n.Term, 1<<40)), Detail: n.Role, Start: begun, End: s.history.Now()})
		s.history.Add(Event{Kind: KindClock, Subject: n.Node, Found: int(n.ClockSkewMs), Start: begun, End: s.history.Now()})
	}
}

func (s *siege) judged(name string) bool {
	for _, n := range s.cluster.Nodes {
		if n.Name == name {
			return true
		}
	}
	return false
}
