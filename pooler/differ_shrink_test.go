package pooler_test

import (
	"slices"
	"strings"
	"time"
)

// shrinkTime bounds the search for a shorter program.
const shrinkTime = 20 * time.Second

// report fails the test with the shortest programs that still differ.
func (d *differ) report(seed uint64, programs []program, found *difference) {
	d.t.Helper()
	long := 0
	for _, p := range programs {
		long += p.steps()
	}
	programs, found = d.shrink(programs, found)
	var all strings.Builder
	for i, p := range programs {
		if len(p.blocks) > 0 {
			if len(programs) > 1 {
				all.WriteString("client " + string(rune('0'+i)) + ":\n")
			}
			all.WriteString(p.String())
		}
	}
	d.t.Errorf("ARMOR_DIFFER_SEED=%d: a program differs (%d steps before it was shrunk, client %d, %v):\n%s%v",
		seed, long, found.program, found.err, all.String(), found)
}

// shrink drops programs, blocks and steps as long as a difference remains.
func (d *differ) shrink(programs []program, found *difference) ([]program, *difference) {
	d.patience = 3 * time.Second // a program that lacks a step may wait in vain
	end := time.Now().Add(shrinkTime)
	for again := true; again; {
		again = false
		for _, candidate := range shorter(programs) {
			if time.Now().After(end) {
				return programs, found
			}
			if f, err := d.compare(candidate, ""); err == nil && f != nil {
				programs, found, again = candidate, f, true
				break
			}
		}
	}
	return programs, found
}

// shorter returns programs with a part left out: large parts first.
func shorter(programs []program) (all [][]program) {
	with := func(i int, blocks []block) {
		candidate := slices.Clone(programs)
		candidate[i].blocks = blocks
		all = append(all, candidate)
	}
	for i, p := range programs {
		if len(p.blocks) > 0 && len(programs) > 1 {
			with(i, nil)
		}
		for size := len(p.blocks) / 2; size > 0; size /= 2 {
			for at := 0; at+size < len(p.blocks); at += size { // the last one ends the conversation
				with(i, slices.Concat(p.blocks[:at], p.blocks[at+size:]))
			}
		}
		for at, b := range p.blocks {
			for k, s := range b {
				if !s.stays {
					with(i, slices.Concat(p.blocks[:at], []block{slices.Concat(b[:k], b[k+1:])}, p.blocks[at+1:]))
				}
			}
		}
		if len(p.startup) > 0 {
			candidate := slices.Clone(programs)
			candidate[i].startup = nil
			all = append(all, candidate)
		}
	}
	return all
}
