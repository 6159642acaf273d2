package pgbouncer

import "slices"

// Report says what became of everything that was written, and of some of what was not.
type Report struct {
	Mapped          []Mapped    `json:"mapped"`
	Defaulted       []Defaulted `json:"defaulted"`
	NotTranslatable []Lost      `json:"notTranslatable"`
	Budgets         []Budget    `json:"budgets"`
}

// Budget says how the budget of a pool was worked out.
type Budget struct {
	Pool   string `json:"pool"`
	Budget int    `json:"budget"`
	How    string `json:"how"`
}

// Mapped is what was written and has its place with us.
type Mapped struct {
	Place string `json:"place"` // file:line
	Key   string `json:"key"`
	// Value is left out where it is a secret.
	Value string `json:"value,omitempty"`
	// To names the field, or says that there is nothing to do.
	To string `json:"to"`
	// Note is what is different, if anything is.
	Note string `json:"note,omitempty"`
}

// Defaulted is what was not written and means something else with us than with
// PgBouncer.
type Defaulted struct {
	Key       string `json:"key"`
	PgBouncer string `json:"pgbouncer"` // its default
	Armor     string `json:"armor"`     // what holds instead
}

// Lost is what was written and cannot be translated.
type Lost struct {
	Place   string `json:"place"`
	Key     string `json:"key"`
	Why     string `json:"why"`
	Instead string `json:"instead"` // what to do
}

// outcome is what becomes of one key with one value: it is mapped, or why is set.
type outcome struct {
	to, note     string
	why, instead string
	secret       bool // the value is not to be repeated
}

// note puts the outcome of what is written at p into the report, once.
func (r *Report) note(p place, key, value string, o outcome) {
	if o.why != "" {
		appendNew(&r.NotTranslatable, Lost{p.String(), key, o.why, o.instead})
		return
	}
	if o.secret {
		value = ""
	}
	appendNew(&r.Mapped, Mapped{p.String(), key, value, o.to, o.note})
}

func appendNew[T comparable](all *[]T, one T) {
	if !slices.Contains(*all, one) {
		*all = append(*all, one)
	}
}
