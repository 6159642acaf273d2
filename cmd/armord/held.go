package main

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/armordb/armordb/armor"
)

// need is one certificate, or list of CAs, that pools need.
type need struct {
	kind string
	name armor.SecretName
}

func (n need) compare(o need) int {
	return cmp.Or(cmp.Compare(n.name, o.name), cmp.Compare(n.kind, o.kind))
}

func needs(s *armor.State) map[need][]string {
	all := map[need][]string{}
	for key, p := range s.Pools.All() {
		d, found := s.Databases.Get(armor.ObjectKey(p.Environment, p.Database))
		if !found {
			continue
		}
		named := map[need]bool{{armor.HeldCA, d.CA}: d.CA != ""}
		for _, r := range d.Roles {
			named[need{armor.HeldClient, r.Certificate}] = r.Certificate != ""
		}
		for n, is := range named {
			if is {
				all[n] = append(all[n], key) // pools come in the order of their keys
			}
		}
	}
	return all
}

// held is when the certificates among the secrets end that the pools need, and how many more there
// are than a node tells of. What is wrong comes first, then what ends first.
func (s secrets) held(state *armor.State) (found []armor.HeldCertificate, more int) {
	named := needs(state)
	for _, n := range slices.SortedFunc(maps.Keys(named), need.compare) {
		c := armor.HeldCertificate{Kind: n.kind, Name: string(n.name), Pools: named[n][:min(len(named[n]), armor.MaxHeldPools)]}
		var err error
		if n.kind == armor.HeldCA {
			c.NotBefore, c.NotAfter, err = s.spanOfCA(n.name)
		} else {
			c.NotBefore, c.NotAfter, err = s.spanOfCertificate(n.name)
		}
		c.Fault = faultOf(err)
		found = append(found, c)
	}
	slices.SortStableFunc(found, func(x, y armor.HeldCertificate) int { return x.NotAfter.Compare(y.NotAfter) })
	kept := min(len(found), armor.MaxHeld)
	return found[:kept], len(found) - kept
}

// faultOf is what operators elsewhere are told. Errors themselves may name what is in a file.
func faultOf(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, armor.ErrNotFound):
		return "its file is missing"
	case errors.Is(err, armor.ErrDenied):
		return "the mode of its file lets others at it"
	}
	return "its files are of no use"
}

// spanOfCertificate is from when to when a client certificate and its chain are good.
func (s secrets) spanOfCertificate(name armor.SecretName) (begins, ends time.Time, err error) {
	pair, err := s.pair(name)
	if err != nil {
		return begins, ends, err
	}
	return pair.Leaf.NotBefore, endOfChain(pair.Certificate), nil
}

// spanOfCA is from when to when some CA of a list is good: the one that ends last.
func (s secrets) spanOfCA(name armor.SecretName) (begins, ends time.Time, err error) {
	text, err := s.caFile(name)
	if err != nil {
		return begins, ends, err
	}
	begins, ends = spanOfList(text)
	return begins, ends, nil
}

// spanOfList reads what x509.CertPool takes from the same text.
func spanOfList(text []byte) (begins, ends time.Time) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			continue
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && c.NotAfter.After(ends) {
			begins, ends = c.NotBefore, c.NotAfter
		}
	}
	return begins, ends
}

// certificates are the node's own and those among its secrets.
func (n *node) certificates() (all []armor.HeldCertificate, more int) {
	state, _ := n.cluster.Current()
	found, more := secrets{n.cfg.SecretsDir}.held(state)
	return append([]armor.HeldCertificate{n.server.held()}, found...), more
}
