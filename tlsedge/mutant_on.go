//go:build mutant

package tlsedge

import (
	"context"
	"time"

	"github.com/armordb/armordb/armor"
)

// mutantBeforeCut is a planted fault: the revision is reported as enforced when the
// state is seen, and the sessions are cut a second later. The chaos harness must
// catch a build with this tag (GUARANTEES, trap 4); nothing else uses it.
var mutantBeforeCut = func(ctx context.Context, e *Edge, s *armor.State) {
	e.cfg.Reporter.Enforced(s.Revision, 0)
	sleep(ctx, time.Second)
}
