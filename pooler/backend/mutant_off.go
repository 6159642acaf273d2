//go:build !mutant

package backend

import "github.com/armordb/armordb/pooler/core"

// ResetQuery is what a server connection is asked between two clients; see mutant_on.go.
const ResetQuery = core.ResetQuery
