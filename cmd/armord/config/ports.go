package config

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/goccy/go-yaml"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
)

// ports is dataDir/ports.yaml: the ports that were chosen for listen addresses with
// port 0.
type ports struct {
	Client int `yaml:"client,omitempty"`
	Peer   int `yaml:"peer,omitempty"`
	Gossip int `yaml:"gossip,omitempty"`
	Ops    int `yaml:"ops,omitempty"`
}

// SettlePorts gives every listen address its port and every advertised address what
// it lacks. It reads and writes dataDir/ports.yaml only when a port is 0.
func (c *Config) SettlePorts() error {
	path := filepath.Join(c.DataDir, "ports.yaml")
	kept, err := readPorts(path)
	if err != nil {
		return err
	}
	before := kept
	for _, l := range []struct {
		listen *string
		port   *int
	}{
		{&c.Client.Listen, &kept.Client}, {&c.Peer.Listen, &kept.Peer}, {&c.Gossip.Listen, &kept.Gossip}, {&c.Ops.Listen, &kept.Ops},
	} {
		if err := settle(l.listen, l.port); err != nil {
			return err
		}
	}
	if kept != before {
		if err := writePorts(path, kept); err != nil {
			return err
		}
	}
	return c.settleAdvertised()
}

// OpsTarget is where the ops listener of a node that runs with this configuration is
// reached from its own machine, host:port. It chooses and writes nothing.
func (c Config) OpsTarget() (string, error) {
	host, port, err := SplitAddress(c.Ops.Listen)
	if err != nil {
		return "", err
	}
	if isWildcard(host) {
		host = "127.0.0.1"
	}
	if port == 0 {
		path := filepath.Join(c.DataDir, "ports.yaml")
		kept, err := readPorts(path)
		if err != nil {
			return "", err
		}
		if port = kept.Ops; port == 0 {
			return "", fmt.Errorf("%w: ops.listen is %s, and no port is written in %s yet: the node has not run", armor.ErrUnavailable, c.Ops.Listen, path)
		}
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}

// settle replaces port 0 of a listen address by the kept port, choosing one if there
// is none yet.
func settle(listen *string, port *int) error {
	host, given, err := SplitAddress(*listen)
	if err != nil || given != 0 {
		return err
	}
	if *port == 0 {
		if *port, err = ChoosePort(host); err != nil {
			return err
		}
	}
	*listen = net.JoinHostPort(host, strconv.Itoa(*port))
	return nil
}

// settleAdvertised fills in what is told to others: the listen address, with this
// machine's name where that one means every address.
func (c *Config) settleAdvertised() error {
	for _, a := range []struct {
		listen    string
		advertise *string
	}{
		{c.Client.Listen, &c.Client.Advertise}, {c.Peer.Listen, &c.Peer.Advertise}, {c.Ops.Listen, &c.Ops.Advertise},
	} {
		if err := advertise(a.listen, a.advertise); err != nil {
			return err
		}
	}
	if c.Gossip.Advertise == "" {
		if host, _, _ := SplitAddress(c.Gossip.Listen); !isWildcard(host) {
			c.Gossip.Advertise = c.Gossip.Listen
		}
	}
	return nil
}

func advertise(listen string, advertise *string) error {
	host, port, err := SplitAddress(listen)
	if err != nil {
		return err
	}
	if *advertise != "" {
		named, given, err := SplitAddress(*advertise)
		if err == nil && given == 0 {
			*advertise = net.JoinHostPort(named, strconv.Itoa(port))
		}
		return err
	}
	if isWildcard(host) {
		if host, err = os.Hostname(); err != nil {
			return fmt.Errorf("name of this machine, for the advertised address: %w", err)
		}
	}
	*advertise = net.JoinHostPort(host, strconv.Itoa(port))
	return nil
}

// Chosen ports lie below Linux's range for outgoing connections (ip(7),
// ip_local_port_range begins at 32768), so that none can take a stopped node's port.
const (
	firstPort = 20000
	lastPort  = 32767
)

// ChoosePort finds a port that is free for TCP and UDP on host.
func ChoosePort(host string) (int, error) {
	var err error
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if err = portIsFree(host, port); err == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("choose a free port on %q: %w", host, err)
}

func portIsFree(host string, port int) error {
	address := net.JoinHostPort(host, strconv.Itoa(port))
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	udp, err := net.ListenPacket("udp", address)
	if err != nil {
		return errors.Join(err, tcp.Close())
	}
	return errors.Join(udp.Close(), tcp.Close())
}

func readPorts(path string) (ports, error) {
	var p ports
	source, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("read chosen ports: %w", err)
	}
	if err := Guard(func() error { return yaml.UnmarshalWithOptions(source, &p, yaml.Strict()) }); err != nil {
		return p, fmt.Errorf("read chosen ports from %s: %s", path, yaml.FormatError(err, false, true))
	}
	return p, nil
}

func writePorts(path string, p ports) error {
	text, err := yaml.Marshal(p)
	if err != nil {
		return err
	}
	return file.Replace(path, text, 0o600)
}
