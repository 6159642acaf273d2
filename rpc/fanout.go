package rpc

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/armordb/armordb/armor"
)

// answerOf is what one node said.
type answerOf[T any] struct {
	node   armor.NodeID
	answer T
	err    error
}

// askOthers asks every other member at once, each for askTimeout, and returns what they
// said in the order of their ids.
func askOthers[T any](ctx context.Context, s *Server, ask func(context.Context, armor.NodeID) (T, error)) []answerOf[T] {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return askEach(ctx, s, ask)
}

// askEach asks every other member at once, for as long as ctx lasts.
func askEach[T any](ctx context.Context, s *Server, ask func(context.Context, armor.NodeID) (T, error)) []answerOf[T] {
	state, _ := s.cfg.Node.Current()
	var answers []answerOf[T]
	for m := range state.Members.Values() {
		if m.ID != s.cfg.Node.ID() {
			answers = append(answers, answerOf[T]{node: m.ID})
		}
	}
	var asking sync.WaitGroup
	for i := range answers {
		asking.Go(func() { answers[i].answer, answers[i].err = ask(ctx, answers[i].node) })
	}
	asking.Wait()
	return answers
}

// why words an error of a node that did not answer.
func why(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "did not answer within " + askTimeout.String()
	}
	return err.Error()
}

// census is the status of this node and of every member, in the order of their ids.
func (s *Server) census(ctx context.Context) []armor.NodeStatus {
	state, _ := s.cfg.Node.Current()
	all := []armor.NodeStatus{s.cfg.Node.Status()}
	for _, a := range askOthers(ctx, s, s.cfg.Peers.status) {
		if a.err != nil {
			m, _ := state.Members.Get(string(a.node))
			a.answer = armor.NodeStatus{
				Node: a.node, Unreachable: why(a.err),
				PeerAddress: m.PeerAddress, ClientAddress: m.ClientAddress, OpsAddress: m.OpsAddress,
			}
		}
		all = append(all, a.answer)
	}
	slices.SortFunc(all, func(a, b armor.NodeStatus) int { return cmp.Compare(a.Node, b.Node) })
	return all
}

// survey is the sessions of every node: those that selectors would cut, or all for
// nil.
func (s *Server) survey(ctx context.Context, selectors []armor.Selector) SessionSurvey {
	survey := SessionSurvey{Sessions: slices.Clone(s.sessionsHere(selectors))}
	answers := askOthers(ctx, s, func(ctx context.Context, node armor.NodeID) ([]armor.SessionInfo, error) {
		return s.cfg.Peers.sessions(ctx, node, selectors)
	})
	for _, a := range answers {
		if a.err != nil {
			survey.Silent = append(survey.Silent, SilentNode{Node: a.node, Why: why(a.err)})
			continue
		}
		survey.Sessions = append(survey.Sessions, a.answer...)
	}
	slices.SortFunc(survey.Sessions, func(a, b armor.SessionInfo) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.ID, b.ID))
	})
	return survey
}

func (s *Server) sessionsHere(selectors []armor.Selector) []armor.SessionInfo {
	if selectors == nil {
		return s.cfg.Node.Sessions()
	}
	return s.cfg.Node.Preview(selectors)
}
