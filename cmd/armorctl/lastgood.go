package main

import (
	"context"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc"
)

// lookedPages bounds how much of the inventory is looked through for what ends or hangs on
// something: beside a million certificates it costs as much as beside ten thousand.
const lookedPages = 10

// asker asks a question; *rpc.Client is one.
type asker interface {
	Ask(ctx context.Context, q armor.Question, tables ...rpc.Table) (s *armor.State, next string, err error)
}

// lastGood are the registered certificates of a page's choice that are the last good ones of
// their identities: whose end is the end of somebody's access. Those that end first come first.
type lastGood struct {
	certs []armor.CertRecord
	more  bool // there are more than were looked through
}

// lookForLastGood looks through the certificates in use that wanted chooses.
func lookForLastGood(ctx context.Context, client asker, wanted armor.CertificatePage, now time.Time) (found lastGood, err error) {
	wanted.ValidAt, wanted.Limit = now, pageSize
	for range lookedPages {
		state, next, err := client.Ask(ctx, armor.Question{CertificatePage: wanted}, certTables...)
		if err != nil {
			return found, err
		}
		rows := chosen(state, wanted, now)
		last, err := lastOf(ctx, client, rows, now)
		if err != nil {
			return found, err
		}
		for _, r := range rows {
			l := last[r.Certificate.Identity]
			if l.Certificate.Fingerprint == r.Certificate.Fingerprint || l.Environment != r.Environment {
				found.certs = append(found.certs, r)
			}
		}
		if wanted.After = next; next == "" {
			return found, nil
		}
	}
	found.more = true
	return found, nil
}

// chosen are the rows that a page is about: a node of an earlier release may have sent others.
func chosen(s *armor.State, wanted armor.CertificatePage, now time.Time) (rows []armor.CertRecord) {
	for _, r := range byExpiry(s) {
		c := r.Certificate
		if !wanted.Until.IsZero() && !c.NotAfter.Before(wanted.Until) || !wanted.Issuer.IsZero() && c.ID.Issuer != wanted.Issuer {
			continue
		}
		if viewOfCert(s, r, now).State == "valid" {
			rows = append(rows, r)
		}
	}
	return rows
}

// lastOf is, for each identity of some certificates, the one in use that ends last.
func lastOf(ctx context.Context, client asker, rows []armor.CertRecord, now time.Time) (map[armor.Identity]armor.CertRecord, error) {
	last := map[armor.Identity]armor.CertRecord{}
	about := armor.Question{Each: 1, ValidAt: now}
	for _, r := range rows {
		if _, asked := last[r.Certificate.Identity]; !asked {
			about.Identities = append(about.Identities, string(r.Certificate.Identity))
		}
		last[r.Certificate.Identity] = r // in the order of their ends
	}
	if len(rows) == 0 {
		return last, nil
	}
	state, _, err := client.Ask(ctx, about, certTables...)
	if err != nil {
		return nil, err
	}
	for _, r := range chosen(state, armor.CertificatePage{}, now) {
		if l, asked := last[r.Certificate.Identity]; asked && r.Certificate.NotAfter.After(l.Certificate.NotAfter) {
			last[r.Certificate.Identity] = r
		}
	}
	return last, nil
}
