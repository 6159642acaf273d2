package tlsedge

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

// claim is a failed handshake as it is noted.
func claim(source string, serial int) (armor.Unproven, armor.Digest) {
	u := armor.Unproven{At: time.Unix(int64(serial), 0), Source: netip.MustParseAddrPort(source), Times: 1, Error: "x509", Serial: fmt.Sprint(serial), Revision: 1}
	return u, sha256.Sum256([]byte(u.Serial))
}

// Planted mistakes that this catches: one source that pushes out another, a memory without
// bounds, and signatures that are checked for every repetition.
func TestStrangersPushOutOnlyTheirOwn(t *testing.T) {
	kept, asked := newUnproven(), 0
	note := func(source string, serial int) armor.Unproven {
		u, leaf := claim(source, serial)
		return kept.note(u, leaf, false, func() string { asked++; return "cure " + u.Serial })
	}
	note("10.0.0.7:1", 1)
	for i := range 1000 {
		note(fmt.Sprintf("10.0.0.8:%d", i+1), i+10)
	}
	mine, theirs := kept.of(netip.MustParseAddr("10.0.0.7"), 100), kept.of(netip.MustParseAddr("10.0.0.8"), 100)
	if len(mine) != 1 || len(theirs) != maxOfSource || theirs[0].Serial != "1009" || theirs[maxOfSource-1].Serial != fmt.Sprint(1010-maxOfSource) {
		t.Errorf("of one %+v, of the other %d", mine, len(theirs))
	}
	asked = 0
	for range 50 {
		note("10.0.0.7:9", 1)
	}
	again := kept.of(netip.MustParseAddr("10.0.0.7"), 100)
	if len(again) != 1 || again[0].Times != 51 || again[0].Cure != "cure 1" || asked != 0 {
		t.Errorf("repeated: %+v, asked %d times", again, asked)
	}
	u, leaf := claim("10.0.0.7:9", 1)
	u.Revision, u.At = 2, u.At.Add(cureEvery)
	if u = kept.note(u, leaf, false, func() string { return "another" }); u.Cure != "another" || u.Times != 52 {
		t.Errorf("at another revision: %+v", u)
	}
	asked = 0
	for i := range 100 { // within a tenth of a second: one is looked into, unless it is logged
		u, leaf := claim("10.0.0.9:1", i)
		u.At = time.Unix(7, 0)
		kept.note(u, leaf, i == 50, func() string { asked++; return "" })
	}
	if asked != 2 {
		t.Errorf("of a flood, %d were looked into", asked)
	}
	for i := range 2 * maxSources {
		note(fmt.Sprintf("10.1.%d.%d:1", i/250, i%250), 5000+i)
	}
	if len(kept.sources) != maxSources || len(kept.of(netip.MustParseAddr("10.0.0.8"), 100)) != 0 {
		t.Errorf("%d sources", len(kept.sources))
	}
	// One host of IPv6 has as many addresses as it likes, and an address is asked for alone.
	for i := range 100 {
		note(fmt.Sprintf("[2001:db8::%x]:1", i+1), 9000+i)
	}
	if n := len(kept.sources); n != maxSources {
		t.Errorf("%d sources", n)
	}
	if one := kept.of(netip.MustParseAddr("2001:db8::64"), 100); len(one) != 1 || one[0].Serial != "9099" {
		t.Errorf("of one address of a /64: %+v", one)
	}
}

func TestRefusalsOfASourceAreTheLatestFirst(t *testing.T) {
	d := newDenials("n1")
	facts := func(source string) armor.Facts {
		return armor.Facts{Peer: armor.Peer{Source: netip.MustParseAddrPort(source)}}
	}
	for i := range remembered + 7 {
		d.record(&armor.Denial{Reason: armor.ReasonRole, Message: fmt.Sprint(i)}, facts(fmt.Sprintf("10.0.0.%d:1", i%2)), 1)
	}
	got := d.of(netip.MustParseAddr("10.0.0.1"), 3)
	var said []string
	for _, r := range got {
		said = append(said, r.Denial.Message)
	}
	if want := []string{fmt.Sprint(remembered + 5), fmt.Sprint(remembered + 3), fmt.Sprint(remembered + 1)}; !slices.Equal(said, want) {
		t.Errorf("%v, want %v", said, want)
	}
	if n := len(d.of(netip.MustParseAddr("10.9.9.9"), 3)); n != 0 {
		t.Errorf("%d of an address that was never here", n)
	}
}
