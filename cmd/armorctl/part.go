package main

import (
	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
)

// part is which part of a long list is wanted.
type part struct {
	limit int    // rows; zero: all
	after string // where the part before ended
}

func partFlags(cmd *cobra.Command, p *part) {
	f := cmd.Flags()
	f.IntVar(&p.limit, "limit", 0, "stop after `number` of them, and say where; 0 lists all")
	f.StringVar(&p.after, "page", "", "go on from a `place` that an earlier part ended at")
}

// turn asks for one page after another until the list ends or the limit is reached; ask returns
// how many rows it found and where they end. It returns where the part ends, empty at the end.
func (p part) turn(ask func(limit int, after string) (rows int, next string, err error)) (string, error) {
	left, next := p.limit, p.after
	for {
		limit := pageSize
		if p.limit > 0 {
			limit = min(limit, left)
		}
		rows, after, err := ask(limit, next)
		if err != nil {
			return "", err
		}
		left, next = left-rows, after
		if next == "" || p.limit > 0 && left <= 0 {
			return next, nil
		}
	}
}

// pageSize is how many rows are asked for at a time.
const pageSize = armor.MaxPage / 10

// sayNext says how a list goes on.
func (a *app) sayNext(next string) {
	if next != "" {
		a.say("there are more: the same command with --page %s goes on", next)
	}
}
