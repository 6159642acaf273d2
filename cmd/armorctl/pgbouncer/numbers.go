package pgbouncer

import (
	"math"
	"strconv"
	"time"

	"github.com/armordb/armordb/armor"
)

// where is where PgBouncer looks for a setting, the first that has it: a user of
// [users], a database of [databases], [pgbouncer].
type where struct {
	t              *translation
	user, database *section
}

// find returns a setting, its place, and whether it is written. inMain is the key in
// [pgbouncer], which may have another name there.
func (w where) find(key, inMain string) (value string, p place, written bool) {
	for _, s := range []*section{w.user, w.database} {
		if s == nil {
			continue
		}
		if v, ok := s.values[key]; ok && !(key == "query_wait_timeout" && v == "-1") { // "not set"
			return v, s.place, true
		}
	}
	if e, ok := w.t.settings[inMain]; ok {
		return e.value, e.place, true
	}
	return defaults[inMain], place{}, false
}

// count is a setting that is a number; 0 when it is not written and has no default.
func (w where) count(key, inMain string) int {
	value, p, _ := w.find(key, inMain)
	if value == "" {
		return 0
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 || n > math.MaxInt32 {
		w.t.at(p, "%s: %q is not a number that PgBouncer takes", key, clip(value))
		return 0
	}
	return n
}

// duration is a setting in seconds.
func (w where) duration(key, inMain string) time.Duration {
	value, p, _ := w.find(key, inMain)
	if value == "" {
		return 0
	}
	seconds, err := strconv.ParseFloat(value, 64)
	if err != nil || !(seconds >= 0 && seconds <= maxSeconds) {
		w.t.at(p, "%s: %q is not a number of seconds between 0 and a year", key, clip(value))
		return 0
	}
	d := time.Duration(seconds * float64(time.Second)).Round(time.Millisecond)
	if seconds > 0 && d < armor.ShortestTimeOut {
		w.t.report.note(p, key, value, outcome{why: "time-outs are measured coarsely: the shortest is " + armor.ShortestTimeOut.String(),
			instead: "that is written"})
		d = armor.ShortestTimeOut
	}
	return d
}

const maxSeconds = 365 * 24 * 60 * 60
