package pgbouncer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
)

func TestConsoleUsersAreGrantedTheConsole(t *testing.T) {
	r := translate(t, files{ini: small + "admin_users = checkout, root\nstats_users = watcher\n", userlist: users}, options)
	for identity, want := range map[string]string{"checkout": "[admin stats]", "root": "[admin stats]", "watcher": "[stats]"} {
		grants := r.grants(t, identity)
		last := grants[len(grants)-1]
		if last.Database != "pgbouncer" || fmt.Sprint(last.Roles) != want {
			t.Errorf("%s: %+v", identity, grants)
		}
		if identity != "checkout" && len(grants) != 1 {
			t.Errorf("%s reaches databases, though it is no user: %+v", identity, grants)
		}
	}
}

func TestHBARecordsBecomeGrants(t *testing.T) {
	ini := strings.Replace(small, "[pgbouncer]\n", "reports = host=pg1\n[pgbouncer]\nauth_type = hba\nauth_hba_file = h.conf\n", 1)
	prefixes := func(texts ...string) (all []netip.Prefix) {
		for _, text := range texts {
			all = append(all, netip.MustParsePrefix(text))
		}
		return all
	}
	for name, c := range map[string]struct {
		hba  string
		want []access
		lost []string
	}{
		"everybody":   {"hostssl all all all cert", []access{{nil, ""}}, nil},
		"by password": {"host orders checkout 10.2.3.4/16 scram-sha-256", []access{{prefixes("10.2.0.0/16"), armor.SCRAM}}, nil},
		"a mask":      {"host orders checkout 10.2.3.4 255.255.0.0 md5", []access{{prefixes("10.2.0.0/16"), armor.SCRAM}}, nil},
		"two networks": {"host all all 10.2.0.0/16 md5\nhost all all fd00::/8 md5",
			[]access{{prefixes("10.2.0.0/16", "fd00::/8"), armor.SCRAM}}, nil},
		"two methods": {"host all all 10.2.0.0/16 trust\nhost all all all md5",
			[]access{{prefixes("10.2.0.0/16"), ""}, {nil, armor.SCRAM}}, nil},
		"another database":        {"host reports,\"x y\" all all md5", nil, nil},
		"another user":            {"host all somebody all md5", nil, nil},
		"all in quotes is a name": {`host "all" all all md5`, nil, nil},
		"a last refusal":          {"host all checkout all md5\nhost all all all reject", []access{{nil, armor.SCRAM}}, nil},
		"a refusal before":        {"host all all all reject\nhost all all all md5", nil, nil},
		"an exception":            {"host all all 10.1.0.0/16 reject\nhost all all all md5", nil, []string{"h.conf:1 hba"}},
		"an exception for others": {"host all other 10.1.0.0/16 reject\nhost all all all md5", []access{{nil, armor.SCRAM}},
			[]string{"h.conf:1 hba"}},
		"a method that is not there": {"host all all 10.1.0.0/16 ldap\nhost all all all md5", nil, []string{"h.conf:1 hba"}},
		"a group may hold anybody":   {"host all +staff 10.1.0.0/16 md5\nhost all all all trust", nil, []string{"h.conf:1 hba"}},
		"sockets are nobody's":       {"local all all peer\nhost all all all md5", []access{{nil, armor.SCRAM}}, []string{"h.conf:1 hba"}},
		"replication": {"host replication all all md5\nhost all all all md5", []access{{nil, armor.SCRAM}},
			[]string{"h.conf:1 hba"}},
		"a user's own": {"host sameuser all all md5", nil, nil},
		"a map":        {"hostssl all all all cert map=m", nil, []string{"h.conf:1 hba"}},
	} {
		r := translate(t, files{ini: ini, userlist: users, hba: c.hba + "\n"}, options)
		var got []access
		for _, g := range r.grants(t, "checkout") {
			if g.Database == "orders" {
				got = append(got, access{g.CIDRs, g.SecondFactor})
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: grants %v, want %v", name, got, c.want)
		}
		lost := slices.DeleteFunc(r.lost(), func(l string) bool { return !strings.HasSuffix(l, " hba") })
		if !slices.Equal(lost, c.lost) {
			t.Errorf("%s: lost %v, want %v", name, lost, c.lost)
		}
	}
}
