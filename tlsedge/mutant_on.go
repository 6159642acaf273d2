//go:build mutant

package tlsedge

import (
	"context"
	"os"
	"time"

	"github.com/armordb/armordb/armor"
)

// mutantBeforeCut is a planted fault, in force when ARMOR_MUTANT=acknowledge: the revision
// is reported as enforced when the state is seen, and the sessions are cut a second
// later. The chaos harness must catch it; nothing else uses it.
var mutantBeforeCut = func(ctx context.Context, e *Edge, s *armor.State) {
	if os.Getenv("ARMOR_MUTANT") != "acknowledge" {
		return
	}
	e.cfg.Reporter.Enforced(s.Revision, 0)
	sleep(ctx, time.Second)
}
