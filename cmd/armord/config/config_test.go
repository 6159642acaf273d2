package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

const minimal = `node: n1
cluster: acme
dataDir: data
`

func TestMinimalConfigurationIsCompleted(t *testing.T) {
	c, err := Parse([]byte(minimal), "/etc/armord")
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []struct{ got, want string }{
		{c.DataDir, "/etc/armord/data"},
		{c.SecretsDir, "/etc/armord/data/secrets"},
		{c.AdminSocket, "/etc/armord/data/admin.sock"},
		{c.Client.Listen, ":6432"},
		{c.Peer.CertFile, "/etc/armord/data/peer/node.crt"},
		{c.Gossip.KeyFile, "/etc/armord/data/peer/gossip.key"},
		{c.Ops.Listen, "127.0.0.1:6435"},
	} {
		if got.got != got.want {
			t.Errorf("got %q, want %q", got.got, got.want)
		}
	}
	if c.Limits.MaxClients != 10000 {
		t.Errorf("maxClients = %d", c.Limits.MaxClients)
	}
}

func TestWrongConfigurationSaysWhatAndWhere(t *testing.T) {
	for _, test := range []struct {
		name, source string
		want         []string
	}{
		{"empty", "", []string{"the file is empty"}},
		{"unknown key", minimal + "clientt: {}\n", []string{"clientt", "[4:1]"}},
		{"unknown nested key", minimal + "client:\n  listne: \":1\"\n", []string{"listne", "[5:3]"}},
		{"duplicate key", minimal + "node: n2\n", []string{"node", "[4:1]"}},
		{"wrong type", minimal + "limits: {maxClients: many}\n", []string{"[4:", "many"}},
		{"second document", minimal + "---\nnode: n2\n", []string{"second YAML document"}},
		{"no node", "cluster: acme\ndataDir: d\n", []string{"node:", "node id"}},
		{"bad node", "node: N1\ncluster: acme\ndataDir: d\n", []string{"node:", `"N1"`, ">  1 |"}},
		{"bad cluster", "node: n1\ncluster: 'a b'\ndataDir: d\n", []string{"cluster:", ">  2 |"}},
		{"no data directory", "node: n1\ncluster: acme\n", []string{"dataDir:", "must be given"}},
		{"bad port", minimal + "peer:\n  listen: 127.0.0.1:99999\n", []string{"peer.listen:", "99999", ">  5 |"}},
		{"no port", minimal + "ops:\n  listen: localhost\n", []string{"ops.listen:", "host:port"}},
		{"wildcard advertised", minimal + "client:\n  advertise: 0.0.0.0:6432\n", []string{"client.advertise:", "could dial"}},
		{"a balancer that is no network", minimal + "client:\n  proxyProtocol: {from: [10.0.0.7]}\n",
			[]string{"client.proxyProtocol.from:", "such as 10.0.9.0/28"}},
		{"a balancer with host bits", minimal + "client:\n  proxyProtocol: {from: [10.0.0.7/8]}\n",
			[]string{"client.proxyProtocol.from:", "write 10.0.0.0/8"}},
		{"everybody is a balancer", minimal + "client:\n  proxyProtocol: {from: ['::/0']}\n",
			[]string{"client.proxyProtocol.from:", "name the load balancers"}},
		{"everywhere advertised", minimal + "ops:\n  advertise: ':6435'\n", []string{"ops.advertise:", "could dial"}},
		{"gossip advertises a name", minimal + "gossip:\n  advertise: web:6434\n", []string{"gossip.advertise:", "IP address"}},
		{"join without token", minimal + "join:\n  addresses: [\"n1:6433\"]\n", []string{"join.addresses:", "tokenFile"}},
		{"bad level", minimal + "log:\n  level: loud\n", []string{"log.level:", "loud"}},
		{"negative delay", minimal + "drain:\n  delay: -1s\n", []string{"drain.delay:", "0s to 10m", ">  5 |"}},
		{"states saved all the time", minimal + "snapshots: {every: 30s}\n", []string{"snapshots.every:", "1m to 720h, nor 0s"}},
		{"no state kept", minimal + "snapshots: {keep: -1}\n", []string{"snapshots.keep:", "-1"}},
		{"states among Raft's", minimal + "snapshots: {directory: data/snapshots}\n", []string{"snapshots.directory:", "files of its own"}},
		{"bad limit", minimal + "limits:\n  maxClients: -1\n", []string{"limits.maxClients:", "-1"}},
		{"long socket", minimal + "adminSocket: /" + strings.Repeat("x", 120) + "\n", []string{"adminSocket:", "107"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse([]byte(test.source), "/etc/armord")
			if !errors.Is(err, armor.ErrInvalid) {
				t.Fatalf("Parse = %v, want ErrInvalid", err)
			}
			for _, w := range test.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error does not say %q:\n%v", w, err)
				}
			}
		})
	}
}

func TestDrainDelayOfZeroIsNotTheDefault(t *testing.T) {
	for more, want := range map[string]time.Duration{"": drainDelay, "drain: {}\n": drainDelay, "drain:\n": drainDelay,
		"drain: {delay: 0s}\n": 0, "drain: {delay: 20s}\n": 20 * time.Second} {
		c, err := Parse([]byte(minimal+more), "/etc/armord")
		if err != nil || c.Drain.Delay != want {
			t.Errorf("%q: %v, %v, want %v", more, c.Drain.Delay, err, want)
		}
	}
}

func TestAScheduleIsOnUnlessItIsTurnedOff(t *testing.T) {
	for more, want := range map[string]Snapshots{
		"":                                       {"/etc/armord/data/saved", saveEvery, 28},
		"snapshots:\n":                           {"/etc/armord/data/saved", saveEvery, 28},
		"snapshots: {every: 0s}\n":               {"/etc/armord/data/saved", 0, 28},
		"snapshots: {directory: /b, keep: 3}\n":  {"/b", saveEvery, 3},
		"snapshots: {directory: b, every: 1h}\n": {"/etc/armord/b", time.Hour, 28},
	} {
		c, err := Parse([]byte(minimal+more), "/etc/armord")
		if err != nil || c.Snapshots != want {
			t.Errorf("%q: %v, %v, want %v", more, c.Snapshots, err, want)
		}
	}
}

func FuzzConfiguration(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte("node: &a n1\ncluster: *a\n"))
	f.Add([]byte("client: {listen: [}"))
	f.Fuzz(func(t *testing.T, source []byte) {
		c, err := Parse(source, "/etc/armord")
		if err == nil && (c.Node == "" || c.DataDir == "") {
			t.Fatalf("accepted a configuration without node or dataDir: %+v", c)
		}
	})
}

func TestChosenPortsAreKept(t *testing.T) {
	dir := t.TempDir()
	source := []byte("node: n1\ncluster: acme\ndataDir: " + dir +
		"\nclient: {listen: '127.0.0.1:0'}\npeer: {listen: '127.0.0.1:0', advertise: 'localhost:0'}\n")
	settled := func() Config {
		c, err := Parse(source, dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SettlePorts(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := settled()
	_, port, err := SplitAddress(first.Client.Listen)
	if err != nil || port < firstPort || port > lastPort {
		t.Fatalf("client listens on %q", first.Client.Listen)
	}
	if first.Client.Advertise != first.Client.Listen {
		t.Errorf("client advertises %q, listens on %q", first.Client.Advertise, first.Client.Listen)
	}
	if want := "localhost" + strings.TrimPrefix(first.Peer.Listen, "127.0.0.1"); first.Peer.Advertise != want {
		t.Errorf("peer advertises %q, want %q", first.Peer.Advertise, want)
	}
	if second := settled(); second.Client.Listen != first.Client.Listen || second.Peer.Listen != first.Peer.Listen {
		t.Errorf("the ports changed from %q, %q to %q, %q", first.Client.Listen, first.Peer.Listen, second.Client.Listen, second.Peer.Listen)
	}
}

func TestListeningEverywhereIsAdvertisedByTheMachinesName(t *testing.T) {
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, everywhere := range []string{"", "0.0.0.0", "[::]"} {
		c, err := Parse(fmt.Appendf(nil, "%sclient: {listen: '%[2]s:1001'}\npeer: {listen: '%[2]s:1002'}\nops: {listen: '%[2]s:1003'}\n",
			minimal, everywhere), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SettlePorts(); err != nil {
			t.Fatal(err)
		}
		got := []string{c.Client.Advertise, c.Peer.Advertise, c.Ops.Advertise}
		if want := []string{name + ":1001", name + ":1002", name + ":1003"}; !slices.Equal(got, want) {
			t.Errorf("listening on %q is advertised as %q, want %q", everywhere, got, want)
		}
	}
}

func TestBrokenPortsFileIsNotOverwritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ports.yaml")
	if err := os.WriteFile(path, []byte("cleint: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Config{DataDir: dir, Client: Client{Listen: "127.0.0.1:0"}}
	if err := c.SettlePorts(); err == nil || !strings.Contains(err.Error(), path) {
		t.Fatalf("SettlePorts = %v, want an error that names %s", err, path)
	}
}
