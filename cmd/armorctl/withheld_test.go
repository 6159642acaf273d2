package main

import (
	"testing"

	"github.com/armordb/armordb/armor"
)

func TestTheLeaderSaysWhatIsWithheld(t *testing.T) {
	said := func(why string) []armor.Withheld {
		return []armor.Withheld{{Pool: "e/a", Node: "n3", Count: 4, Why: why}, {Pool: "e/b", Node: "n3", Count: 1, Why: why}}
	}
	nodes := []nodeView{
		{Node: "n1", Role: "follower", withheld: said("follower")}, {Node: "n2", Role: "leader", Term: 4, withheld: said("leader")},
		{Node: "n4", Role: "leader", Term: 3, withheld: said("former leader")}, {Node: "n5", Role: unreachable, Unreachable: "down"},
	}
	all := withheldOf("e/a", nodes)
	if len(all) != 1 || all[0] != (withheldView{"n3", 4, "leader", ""}) {
		t.Errorf("%+v", all)
	}
	if all = withheldOf("e/a", nodes[:1]); len(all) != 1 || all[0].Why != "follower" {
		t.Errorf("without a leader: %+v", all)
	}
	if rows := withheldTable([]clusterPoolView{{Pool: "e/a", Withheld: all}}).rows; len(rows) != 1 || rows[0][1] != "e/a" || rows[0][2] != "n3" {
		t.Errorf("%v", rows)
	}
}
