package fsm

import (
	"sync/atomic"

	"github.com/armordb/armordb/armor"
)

// trailLength is how many revisions back the trail reaches: minutes of a busy cluster.
const trailLength = 4096

// trail remembers where the latest revisions stood, so that nodes that have come to
// different ones can be compared. It may be read from any goroutine.
type trail struct {
	marks [trailLength]atomic.Pointer[armor.Mark]
}

func (t *trail) add(m armor.Mark) { t.marks[m.Revision%trailLength].Store(&m) }

func (t *trail) at(revision uint64) (armor.Mark, bool) {
	m := t.marks[revision%trailLength].Load()
	if m == nil || m.Revision != revision || revision == 0 {
		return armor.Mark{}, false
	}
	return *m, true
}
