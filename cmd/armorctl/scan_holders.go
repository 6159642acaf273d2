package main

import (
	"context"
	"slices"
	"strings"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/rpc"
)

// keyHolderView is somebody whose key was found.
type keyHolderView struct {
	Kind        string `json:"kind"` // client, trust anchor, peer CA, node or operator
	Name        string `json:"name"`
	Environment string `json:"environment,omitempty"`
	Owner       string `json:"owner,omitempty"`
	Contact     string `json:"contact,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"`
	Serial      string `json:"serial,omitempty"`
	NotAfter    string `json:"notAfter,omitempty"`
	State       string `json:"state"`
	// revoke is the command that takes away what nobody but a cluster's own has.
	revoke string
}

// unknownKey is the command for a key of which only itself is known.
func unknownKey(key string) string {
	if key == "" {
		return ""
	}
	return "armorctl revoke --key " + key + " --reason key-compromise"
}

const (
	// askedKeys is how many keys one question is about.
	askedKeys = 500
	// heldEach is how many certificates of a key are looked at.
	heldEach = 20
)

// holdings are the keys that were found, and what the cluster says of them.
type holdings struct {
	keys    []armor.Digest
	holders map[armor.Digest][]keyHolderView
	revoked map[armor.Digest]bool
}

// attribute asks the cluster whose the keys are.
func (a *app) attribute(ctx context.Context, v *scanView) error {
	h := holdings{holders: map[armor.Digest][]keyHolderView{}, revoked: map[armor.Digest]bool{}}
	digests := make([]armor.Digest, len(v.Found))
	for i, f := range v.Found {
		if f.Key == "" {
			continue
		}
		var err error
		if digests[i], err = armor.ParseDigest(f.Key); err != nil {
			return err
		}
		if !slices.Contains(h.keys, digests[i]) {
			h.keys = append(h.keys, digests[i])
		}
	}
	client, ctx, done, err := a.reach(ctx)
	if err != nil {
		return err
	}
	defer done()
	for keys := range slices.Chunk(h.keys, askedKeys) {
		if err := a.askHolders(ctx, client, keys, h); err != nil {
			return err
		}
	}
	v.Asked = true
	for i := range v.Found {
		if f, key := &v.Found[i], digests[i]; !key.IsZero() {
			f.Holders = append(f.Holders, h.holders[key]...)
			f.Revoked = h.revoked[key]
			f.Revoke = commandFor(f.Key, f.Holders, f.Revoked)
		}
	}
	return nil
}

func (a *app) askHolders(ctx context.Context, client *rpc.Client, keys []armor.Digest, h holdings) error {
	q := armor.Question{Each: heldEach}
	for _, key := range keys {
		q.Selectors = append(q.Selectors, armor.Selector{Kind: armor.SelectKey, Key: key})
	}
	s, _, err := client.Ask(ctx, q, armor.Inventory, armor.Revoked, armor.Anchors, armor.Members, armor.Operators)
	if err != nil {
		return err
	}
	for _, r := range byExpiry(s) {
		c := viewOfCert(s, r, a.now())
		h.holders[r.Certificate.Key] = append(h.holders[r.Certificate.Key], keyHolderView{
			Kind: "client", Name: c.Identity, Environment: c.Environment, Owner: c.Owner, Contact: c.Contact,
			Fingerprint: c.Fingerprint, Serial: c.Serial, NotAfter: c.NotAfter, State: c.State,
		})
	}
	own, err := a.ownHolders(s)
	if err != nil {
		return err
	}
	for _, sel := range q.Selectors {
		h.holders[sel.Key] = append(h.holders[sel.Key], own[sel.Key]...)
		_, h.revoked[sel.Key] = s.Revocations.Get(sel.SelectorKey())
	}
	return nil
}

// ownHolders are the cluster's own keys: of those who sign, serve and operate.
func (a *app) ownHolders(s *armor.State) (map[armor.Digest][]keyHolderView, error) {
	own := map[armor.Digest][]keyHolderView{}
	add := func(h keyHolderView, c armor.Certificate, revoked bool) {
		h.Serial, h.NotAfter, h.State = c.ID.Serial, stamp(c.NotAfter), stateWord(revoked, c, a.now())
		if !revoked {
			h.revoke = strings.ReplaceAll(h.revoke, "KEY", c.Key.String())
		} else {
			h.revoke = ""
		}
		own[c.Key] = append(own[c.Key], h)
	}
	for anchor := range s.Anchors.Values() {
		add(keyHolderView{Kind: "trust anchor", Name: "trust anchor " + anchor.Name, Environment: anchor.Environment,
			revoke: "armorctl revoke --issuer KEY --reason ca-compromise"}, anchor.Certificate, anchorRevoked(s, anchor))
	}
	for m := range s.Members.Values() {
		_, revoked := s.RevokesOwn(m.Certificate)
		add(keyHolderView{Kind: "node", Name: "node " + string(m.ID), revoke: "armorctl node replace " + string(m.ID)}, m.Certificate, revoked)
	}
	for o := range s.Operators.Values() {
		_, revoked := s.RevokesOwn(o.Certificate)
		add(keyHolderView{Kind: "operator", Name: "operator " + o.Name, revoke: "armorctl operator remove " + o.Name}, o.Certificate, revoked)
	}
	cas, err := parsePeerCAs(s.Cluster)
	for _, ca := range cas {
		add(keyHolderView{Kind: "peer CA", Name: "peer CA " + ca.Subject.CommonName, revoke: "armorctl peer-ca add --out NEW --peer-ca DIR"},
			pki.Facts(ca, armor.Digest{}), false)
	}
	return own, err
}

// commandFor takes a key away from its holders: with a client's key goes all that its identity was
// issued so far, since a thief may have renewed it.
func commandFor(key string, holders []keyHolderView, revoked bool) string {
	var fingerprints, named []string
	for _, h := range holders {
		switch {
		case h.revoke != "":
			return h.revoke
		case h.Kind == "client" && !slices.Contains(named, h.Name):
			fingerprints = append(fingerprints, "--fingerprint "+h.Fingerprint)
			named = append(named, h.Name)
		}
	}
	switch {
	case revoked || len(holders) > 0 && len(fingerprints) == 0:
		return ""
	case len(fingerprints) > 0:
		return "armorctl revoke " + strings.Join(fingerprints, " ") + " --reason key-compromise"
	}
	return unknownKey(key)
}
