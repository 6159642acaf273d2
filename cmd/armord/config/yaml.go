package config

import (
	"fmt"

	"github.com/armordb/armordb/armor"
)

// Guard turns a panic of the YAML decoder into an error. goccy/go-yaml 1.19.2 panics
// on some documents, such as a tag without a value where a list should be.
func Guard(decode func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("%w: malformed YAML", armor.ErrInvalid)
		}
	}()
	return decode()
}
