//go:build mutant

package backend

import (
	"os"

	"github.com/armordb/armordb/pooler/core"
)

// ResetQuery is a planted fault, in force when ARMOR_MUTANT=unreset: what a client has left
// on a server connection stays for the next one. The chaos harness must catch it;
// nothing else uses it.
var ResetQuery = map[bool]string{true: "", false: core.ResetQuery}[os.Getenv("ARMOR_MUTANT") == "unreset"]
