package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/armordb/armordb/armor"
)

// Config is a node's configuration file: what is this node's own. What the whole
// cluster shares (databases, pools, identities) is applied with armorctl instead.
//
// Paths may be relative to the file's folder. A listen address is host:port; port 0
// chooses a free port once and writes it to dataDir/ports.yaml, where it is found
// again after a restart.
type Config struct {
	// Node is this node's id: 1 to 63 of a–z, 0–9 and '-'. Required.
	Node string `yaml:"node"`
	// Cluster is the cluster's name; it gives nodes and operators their trust
	// domain. Required.
	Cluster string `yaml:"cluster"`
	// DataDir holds the Raft log, snapshots and the node's own keys. Required; made
	// with mode 0700 when it is not there.
	DataDir string `yaml:"dataDir"`
	// SecretsDir holds NAME.yaml (passwords and the hosts they may be sent to), NAME.crt
	// and NAME.key (client certificates), NAME.pem (CA files) and NAME.verifiers for the
	// secret names in the cluster configuration.
	// Default: dataDir/secrets.
	SecretsDir string `yaml:"secretsDir"`

	Client Client `yaml:"client"`
	Peer   Peer   `yaml:"peer"`
	Gossip Gossip `yaml:"gossip"`
	Ops    Ops    `yaml:"ops"`

	// AdminSocket is the Unix socket on which an uninitialised node answers
	// `armorctl init`. Default: dataDir/admin.sock.
	AdminSocket string `yaml:"adminSocket"`

	// ClockSkew is how far this node's clock may be from what a majority of the voters'
	// shows while it leads, 1s to 1m. Default: 5s.
	ClockSkew time.Duration `yaml:"clockSkew"`

	Join      Join      `yaml:"join"`
	Drain     Drain     `yaml:"drain"`
	Snapshots Snapshots `yaml:"snapshots"`
	Log       Log       `yaml:"log"`
	Limits    Limits    `yaml:"limits"`
}

// Client is the listener that PostgreSQL clients connect to.
type Client struct {
	// Listen is host:port. Default: ":6432".
	Listen string `yaml:"listen"`
	// Advertise is the host:port shown to people and used by armorctl connect.
	// Default: listen, with this machine's name in place of an empty host.
	Advertise string `yaml:"advertise"`
	// CertFile and KeyFile are the server certificate that clients see, PEM.
	// Default: dataDir/server.crt and dataDir/server.key. They are read again when
	// they change.
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
	// Environments restricts the listener to clients of these environments.
	// Default: all.
	Environments []string `yaml:"environments"`
	// ProxyProtocol is for load balancers that hide who their clients are.
	ProxyProtocol Proxy `yaml:"proxyProtocol"`
}

// Proxy says who speaks for others by the PROXY protocol, version 1 or 2.
type Proxy struct {
	// From are the Networks of those load balancers: each of their connections must begin
	// with a header, and nobody else's may. Default: none.
	From []string `yaml:"from"`
}

// Networks are From; they were checked.
func (p Proxy) Networks() (all []netip.Prefix) {
	for _, s := range p.From {
		if n, err := netip.ParsePrefix(s); err == nil {
			all = append(all, n)
		}
	}
	return all
}

// Peer is the listener of Raft and of the operator API: one port.
type Peer struct {
	// Listen is host:port. Default: ":6433".
	Listen string `yaml:"listen"`
	// Advertise is the host:port where other nodes and operators dial. Default:
	// listen, with this machine's name in place of an empty host.
	Advertise string `yaml:"advertise"`
	// CertFile and KeyFile are the node's certificate and key, CAFile the CA that
	// signs nodes and operators, all PEM. Default: node.crt, node.key and ca.crt in
	// dataDir/peer, where init and join write them.
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
	CAFile   string `yaml:"caFile"`
}

// Gossip is the listener, TCP and UDP, by which nodes see each other alive.
type Gossip struct {
	// Listen is host:port. Default: ":6434".
	Listen string `yaml:"listen"`
	// Advertise is the ip:port told to other nodes. Default: listen.
	Advertise string `yaml:"advertise"`
	// Join are addresses at which other nodes gossip. Default: each member's host, with
	// this node's own gossip port.
	Join []string `yaml:"join"`
	// KeyFile holds the key that all gossip is encrypted with, 32 bytes in base64.
	// Default: dataDir/peer/gossip.key, where init and join write it.
	KeyFile string `yaml:"keyFile"`
}

// Ops is the HTTP listener for /livez, /readyz and /metrics. It has no
// authentication: keep it on an address that only the machine's monitoring reaches.
type Ops struct {
	// Listen is host:port. Default: "127.0.0.1:6435".
	Listen string `yaml:"listen"`
	// Advertise is the host:port shown to people. Default: listen, with this machine's
	// name in place of an empty host.
	Advertise string `yaml:"advertise"`
	// ReadyPools says which pools have to be served here for /readyz to say ready: none, any
	// of them, or all. /readyz?verbose names those that are not, whatever this is. Default: none.
	ReadyPools string `yaml:"readyPools"`
	// Pprof also serves /debug/pprof/. Default: false.
	Pprof bool `yaml:"pprof"`
}

// What Ops.ReadyPools may be.
const (
	NoPool   = "none"
	AnyPool  = "any"
	AllPools = "all"
)

// Join makes a node without data ask an existing cluster for admission.
type Join struct {
	// Addresses are peer addresses of members, host:port, tried in order. Default: none.
	Addresses []string `yaml:"addresses"`
	// TokenFile holds what `armorctl join-token create` printed. Required with addresses.
	TokenFile string `yaml:"tokenFile"`
}

// Drain is how the node leaves a load balancer.
type Drain struct {
	// Delay is how long a node that is drained, or ends by a signal, says that it is not
	// ready and serves new clients all the same, 0s to 10m: as long as it takes whoever
	// sends clients here to notice. Default: 5s.
	Delay time.Duration `yaml:"delay"`
}

// drainDelay is the default of Drain.Delay: three checks of a load balancer that come every
// second, or two that come every two.
const drainDelay = 5 * time.Second

// Snapshots is when this node saves the cluster's state as a file of its own, for the day on
// which the cluster cannot be asked for it.
type Snapshots struct {
	// Directory is where the files are kept; made with mode 0700 when it is not there. On
	// another disk than dataDir they outlive that. Default: dataDir/saved.
	Directory string `yaml:"directory"`
	// Every is how often the state is saved, if it has changed in more than the pools' shares:
	// 1m to 720h, or 0s for never. Default: 6h.
	Every time.Duration `yaml:"every"`
	// Keep is how many files are kept, 1 to 10000; older ones are removed once a newer one is
	// known to be whole. Default: 28.
	Keep int `yaml:"keep"`
}

// saveEvery is the default of Snapshots.Every, and with that of Keep a week of a busy cluster.
const saveEvery = 6 * time.Hour

// Log is how the node logs, to stderr.
type Log struct {
	// Level is debug, info, warn or error. Default: info.
	Level string `yaml:"level"`
	// Format is json, text, or auto: text on a terminal, else json. Default: auto.
	Format string `yaml:"format"`
}

// Limits bounds what clients may cost this node.
type Limits struct {
	// MaxClients is how many clients may be connected at once; those that are still in
	// their handshake are bounded apart. Default: 10000.
	MaxClients int `yaml:"maxClients"`
	// Loops is how many threads move clients' bytes; each carries some ten thousands
	// of queries a second. Default: one for every four processors.
	Loops int `yaml:"loops"`
}

// Load reads, checks and completes a configuration file. Its errors name the
// file, and the line when there is one.
func Load(path string) (Config, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return Config{}, &Mistake{fmt.Errorf("read configuration: %w", err)}
	}
	folder, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return Config{}, err
	}
	c, err := Parse(source, folder)
	if err != nil {
		return Config{}, &Mistake{fmt.Errorf("%s: %w", path, err)}
	}
	return c, nil
}

// maxConfig bounds what is read as a configuration file.
const maxConfig = 1 << 20

// Parse reads a configuration whose relative paths lie in folder.
func Parse(source []byte, folder string) (Config, error) {
	c := Config{Drain: Drain{Delay: drainDelay}, Snapshots: Snapshots{Every: saveEvery}} // since 0s means something else than nothing
	if len(source) > maxConfig {
		return c, fmt.Errorf("%w: larger than %d bytes", armor.ErrInvalid, maxConfig)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(source), yaml.Strict())
	if err := Guard(func() error { return decoder.Decode(&c) }); errors.Is(err, io.EOF) {
		return c, fmt.Errorf("%w: the file is empty", armor.ErrInvalid)
	} else if err != nil {
		return c, fmt.Errorf("%w: %s", armor.ErrInvalid, yaml.FormatError(err, false, true))
	}
	if err := Guard(func() error { return decoder.Decode(new(Config)) }); !errors.Is(err, io.EOF) {
		return c, fmt.Errorf("%w: there is a second YAML document, or something that is none, after the first", armor.ErrInvalid)
	}
	c.setDefaults(folder)
	if err := c.check(); err != nil {
		return c, err.explain(source)
	}
	return c, nil
}

func (c *Config) setDefaults(folder string) {
	c.DataDir = absolute(c.DataDir, folder, "")
	in := func(name string) string { return filepath.Join(c.DataDir, name) }
	c.SecretsDir = absolute(c.SecretsDir, folder, in("secrets"))
	c.AdminSocket = absolute(c.AdminSocket, folder, in("admin.sock"))
	c.Client.Listen = cmp.Or(c.Client.Listen, ":6432")
	c.Client.CertFile = absolute(c.Client.CertFile, folder, in("server.crt"))
	c.Client.KeyFile = absolute(c.Client.KeyFile, folder, in("server.key"))
	c.Peer.Listen = cmp.Or(c.Peer.Listen, ":6433")
	c.Peer.CertFile = absolute(c.Peer.CertFile, folder, in("peer/node.crt"))
	c.Peer.KeyFile = absolute(c.Peer.KeyFile, folder, in("peer/node.key"))
	c.Peer.CAFile = absolute(c.Peer.CAFile, folder, in("peer/ca.crt"))
	c.Gossip.Listen = cmp.Or(c.Gossip.Listen, ":6434")
	c.Gossip.KeyFile = absolute(c.Gossip.KeyFile, folder, in("peer/gossip.key"))
	c.Ops.Listen = cmp.Or(c.Ops.Listen, "127.0.0.1:6435")
	c.Ops.ReadyPools = cmp.Or(c.Ops.ReadyPools, NoPool)
	c.Join.TokenFile = absolute(c.Join.TokenFile, folder, "")
	c.Snapshots.Directory = absolute(c.Snapshots.Directory, folder, in("saved"))
	c.Snapshots.Keep = cmp.Or(c.Snapshots.Keep, 28)
	c.ClockSkew = cmp.Or(c.ClockSkew, 5*time.Second)
	c.Log.Level = cmp.Or(c.Log.Level, "info")
	c.Log.Format = cmp.Or(c.Log.Format, "auto")
	if c.Limits.MaxClients == 0 {
		c.Limits.MaxClients = 10000
	}
	if c.Limits.Loops == 0 {
		c.Limits.Loops = max(1, runtime.NumCPU()/4)
	}
}

func absolute(path, folder, fallback string) string {
	if path == "" {
		return fallback
	}
	if !filepath.IsAbs(path) {
		return filepath.Join(folder, path)
	}
	return path
}
