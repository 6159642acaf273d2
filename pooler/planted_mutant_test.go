//go:build mutant

package pooler_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/armordb/armordb/pooler"
	"github.com/armordb/armordb/pooler/core"
)

// mutantWord names the fault that a run of this test binary has planted from its beginning.
const mutantWord = "ARMOR_TEST_MUTANT"

func init() {
	core.Plant(core.Mutant(os.Getenv(mutantWord)))
	pooler.Plant(pooler.Mutant(os.Getenv(mutantWord)))
}

// TestMutantsAreFoundByTheirTests: what the random comparison is unlikely to meet has a test of
// its own, which passes on a sound build and fails with the fault in it.
func TestMutantsAreFoundByTheirTests(t *testing.T) {
	for mutant, test := range map[any]string{
		core.IsolationOff:         "TestNothingPassesFromOneIdentityToAnother",
		core.SettingsUnread:       "TestWhatParseReadsBelongsToTheStatement",
		core.NamesGuessable:       "TestStatementNamesAreNobodysToGuess",
		core.DescriptionForgotten: "TestAResultIsDecodedAsItWasDescribed",
		core.AskingOff:            "TestSettingsAreKept",
		core.PinsUnbound:          "TestPinsAreBounded",
		core.RoomLost:             "TestStateThatCannotFollowPins",
		pooler.RecordForgotten:    "TestWhatAKilledNodeHasLeftHoldsItsPlace",
		pooler.UnsentKept:         "TestWhatARevokedSessionHasNotGotThroughIsDropped",
		pooler.LookSkipped:        "TestWhatAKilledNodeHasLeftHoldsItsPlace",
	} {
		t.Run(fmt.Sprint(mutant), func(t *testing.T) {
			run := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+test+"$")
			run.Env = append(os.Environ(), mutantWord+"="+fmt.Sprint(mutant))
			if out, err := run.CombinedOutput(); err == nil || !strings.Contains(string(out), "--- FAIL: "+test) {
				t.Errorf("%s has not found it: %v", test, err)
			}
		})
	}
}
