package armor

import "time"

// The bounds of an environment's freshness: shorter than minFresh and a node that asks
// twice a second flaps; longer than maxFresh and a revocation waits that long for a node
// that is cut off.
const (
	minFresh = time.Second
	maxFresh = 10 * time.Minute
)

// WithDefaults fills in what is left open.
func (e Environment) WithDefaults() Environment {
	if e.Inventory == "" {
		e.Inventory = InventoryOpen
	}
	if e.FreshLive == 0 {
		e.FreshLive = max(DefaultFreshLive, e.FreshNew)
	}
	if e.FreshNew == 0 {
		e.FreshNew = min(DefaultFreshNew, e.FreshLive)
	}
	return e
}

// Check returns the FieldErrors of an environment that has its defaults.
func (e Environment) Check() error {
	var f faults
	f.name(e.Name)
	oneOf(&f, Field{"spec", "inventory"}, e.Inventory, "", InventoryOpen, InventoryRequired)
	oneOf(&f, Field{"spec", "cancel"}, e.Cancel, AnyWord, CancelTLSOnly)
	if e.MaxLeafLifetime < 0 {
		f.wrong(Field{"spec", "maxLeafLifetime"}, "%s is negative", e.MaxLeafLifetime)
	}
	if e.FreshNew < minFresh || e.FreshLive < e.FreshNew || e.FreshLive > maxFresh {
		f.wrong(Field{"spec", "freshness"},
			"%s for new sessions and %s for live ones: at least %s for new ones, no less for live ones, and at most %s",
			e.FreshNew, e.FreshLive, minFresh, maxFresh)
	}
	return f.err()
}
