package pgbouncer

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/armordb/armordb/armor"
)

// hbaLine is a record of auth_hba_file (PostgreSQL, "The pg_hba.conf File").
type hbaLine struct {
	place
	kind            string // local, host, hostssl, hostnossl
	databases       []hbaName
	users           []hbaName
	networks        []netip.Prefix // empty: from anywhere
	method, options string
}

// hbaName is a name in a record; one in quotes has no special meaning.
type hbaName struct {
	name   string
	quoted bool
}

func (n hbaName) is(keyword string) bool { return !n.quoted && n.name == keyword }

// all reports whether the record is for every name.
func all(names []hbaName) bool {
	return slices.ContainsFunc(names, func(n hbaName) bool { return n.is("all") })
}

// readHBA reads auth_hba_file.
func readHBA(name string, text []byte) ([]hbaLine, error) {
	f := &faults{}
	var records []hbaLine
	for p, line := range lines(f, name, text) {
		fields, err := hbaFields(line)
		switch {
		case err != "":
			f.at(p, "%s", err)
		case len(fields) == 0:
		case len(records) == maxEntries:
			f.at(p, "more than %d records", maxEntries)
			return nil, f.err()
		default:
			h := hbaLine{place: p}
			if wrong := h.fill(fields); wrong != "" {
				f.at(p, "%s", wrong)
				continue
			}
			records = append(records, h)
		}
	}
	return records, f.err()
}

// hbaFields cuts a line into fields, each a list of names.
func hbaFields(line string) (fields [][]hbaName, wrong string) {
	joins := false // the next name belongs to the last field
	for line = strings.TrimSpace(line); line != "" && line[0] != '#'; line = strings.TrimSpace(line) {
		if line[0] == ',' {
			if joins || len(fields) == 0 {
				return nil, "a name is missing before a comma"
			}
			joins, line = true, line[1:]
			continue
		}
		n, rest, ok := cutHBAName(line)
		if !ok {
			return nil, "a quote is not closed"
		}
		if line = rest; joins {
			last := len(fields) - 1
			fields[last] = append(fields[last], n)
		} else {
			fields = append(fields, []hbaName{n})
		}
		joins = false
	}
	if joins {
		return nil, "a name is missing behind a comma"
	}
	return fields, ""
}

func cutHBAName(s string) (n hbaName, rest string, ok bool) {
	if s[0] == '"' {
		n.quoted = true
		n.name, rest, ok = armor.CutQuoted(s, '"')
		return n, rest, ok
	}
	i := strings.IndexAny(s, " \t,#")
	if i < 0 {
		i = len(s)
	}
	return hbaName{name: s[:i]}, s[i:], true
}

// fill reads the fields of a record and returns what is wrong with them.
func (h *hbaLine) fill(fields [][]hbaName) (wrong string) {
	h.kind = fields[0][0].name
	need := 5
	switch h.kind {
	case "local":
		need = 4
	case "host", "hostssl", "hostnossl":
	default:
		return "type " + clip(h.kind) + " is not one of local, host, hostssl, hostnossl"
	}
	if len(fields) < need {
		return "a record has a type, databases, users, an address unless it is local, and a method"
	}
	h.databases, h.users = fields[1], fields[2]
	rest := fields[3:]
	if h.kind != "local" {
		if rest, wrong = h.address(rest); wrong != "" {
			return wrong
		}
	}
	h.method = rest[0][0].name
	for _, option := range rest[1:] {
		h.options = strings.TrimSpace(h.options + " " + option[0].name)
	}
	return ""
}

// address reads the address, with its mask if that stands in a field of its own.
func (h *hbaLine) address(fields [][]hbaName) (rest [][]hbaName, wrong string) {
	text := fields[0][0]
	if text.is("all") {
		return fields[1:], ""
	}
	if prefix, err := netip.ParsePrefix(text.name); err == nil {
		h.networks = []netip.Prefix{prefix.Masked()}
		return fields[1:], ""
	}
	addr, err := netip.ParseAddr(text.name)
	if err != nil || len(fields) < 3 {
		return nil, "address " + clip(text.name) + " is not a network such as 10.2.0.0/16, nor all: PgBouncer takes no names"
	}
	bits, ok := maskBits(fields[1][0].name, addr)
	if !ok {
		return nil, clip(fields[1][0].name) + " is no mask of " + addr.String()
	}
	h.networks = []netip.Prefix{netip.PrefixFrom(addr.WithZone(""), bits).Masked()}
	return fields[2:], ""
}

// maskBits is the length of a mask such as 255.255.0.0.
func maskBits(text string, of netip.Addr) (bits int, ok bool) {
	mask, err := netip.ParseAddr(text)
	if err != nil || mask.BitLen() != of.BitLen() {
		return 0, false
	}
	ended := false
	for _, b := range mask.AsSlice() {
		for i := 7; i >= 0; i-- {
			one := b>>i&1 == 1
			if one && ended {
				return 0, false
			}
			if ended = ended || !one; one {
				bits++
			}
		}
	}
	return bits, true
}
