package main

import (
	"context"
	"encoding/pem"
	"time"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc"
)

// fetch opens the chosen cluster, reads tables of its state and closes it again.
func (a *app) fetch(ctx context.Context, tables ...rpc.Table) (*armor.State, error) {
	client, ctx, done, err := a.reach(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return client.State(ctx, tables...)
}

// ask is fetch for what answers a question. Next is where a page ends that was asked for.
func (a *app) ask(ctx context.Context, q armor.Question, tables ...rpc.Table) (s *armor.State, next string, err error) {
	client, ctx, done, err := a.reach(ctx)
	if err != nil {
		return nil, "", err
	}
	defer done()
	return client.Ask(ctx, q, tables...)
}

// certTables are what a registered certificate is judged by.
var certTables = []rpc.Table{armor.Inventory, armor.Revoked, armor.Anchors}

// pemOf shows a certificate.
func pemOf(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// reportSilent names the nodes that a survey could not ask. Their sessions are missing
// from the answer, and whoever reads it must know.
func (a *app) reportSilent(silent []silentView) {
	for _, s := range silent {
		a.say("node %s did not answer: %s", s.Node, s.Why)
	}
}

// silentIn shows the nodes that a survey could not ask; a list also of none.
func silentIn(s rpc.SessionSurvey) []silentView {
	silent := []silentView{}
	for _, n := range s.Silent {
		silent = append(silent, silentView(n))
	}
	return silent
}

// pauseFor waits, and reports false if ctx ends before.
func pauseFor(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
