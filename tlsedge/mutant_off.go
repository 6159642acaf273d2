//go:build !mutant

package tlsedge

import (
	"context"

	"github.com/armordb/armordb/armor"
)

// mutantBeforeCut does nothing in a sound build; see mutant_on.go.
var mutantBeforeCut func(ctx context.Context, e *Edge, s *armor.State)
