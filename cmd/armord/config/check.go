package config

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/armordb/armordb/armor"
)

// fieldError is a value that cannot be: which field, and why.
type fieldError struct {
	path string // as in "$.client.listen"
	err  error
}

// explain adds the line of the file and what stands there, when the field is there.
func (e *fieldError) explain(source []byte) error {
	name := strings.TrimPrefix(e.path, "$.")
	path, err := yaml.PathString(e.path)
	if err != nil {
		return fmt.Errorf("%s: %w", name, e.err)
	}
	excerpt, err := path.AnnotateSource(source, false)
	if err != nil {
		return fmt.Errorf("%s: %w", name, e.err)
	}
	return fmt.Errorf("%s: %w\n%s", name, e.err, strings.TrimRight(string(excerpt), "\n"))
}

// checks are gathered so that the first mistake in the file's order is told.
func (c *Config) check() *fieldError {
	for _, check := range []struct {
		path string
		err  error
	}{
		{"$.node", checkNode(c.Node)},
		{"$.cluster", checkCluster(c.Cluster)},
		{"$.dataDir", required(c.DataDir)},
		{"$.client.listen", checkListen(c.Client.Listen)},
		{"$.client.advertise", checkAdvertise(c.Client.Advertise)},
		{"$.client.environments", checkEnvironments(c.Client.Environments)},
		{"$.client.proxyProtocol.from", c.Client.ProxyProtocol.check()},
		{"$.peer.listen", checkListen(c.Peer.Listen)},
		{"$.peer.advertise", checkAdvertise(c.Peer.Advertise)},
		{"$.gossip.listen", checkListen(c.Gossip.Listen)},
		{"$.gossip.advertise", checkGossipAdvertise(c.Gossip)},
		{"$.gossip.join", checkAddresses(c.Gossip.Join)},
		{"$.ops.listen", checkListen(c.Ops.Listen)},
		{"$.ops.advertise", checkAdvertise(c.Ops.Advertise)},
		{"$.ops.readyPools", checkOneOf(c.Ops.ReadyPools, NoPool, AnyPool, AllPools)},
		{"$.adminSocket", checkSocket(c.AdminSocket)},
		{"$.clockSkew", checkClockSkew(c.ClockSkew)},
		{"$.join.addresses", c.Join.check()},
		{"$.drain.delay", checkDelay(c.Drain.Delay)},
		{"$.snapshots.directory", c.Snapshots.checkDirectory(c.DataDir)},
		{"$.snapshots.every", checkEvery(c.Snapshots.Every)},
		{"$.snapshots.keep", checkRange(c.Snapshots.Keep, 1, 10_000)},
		{"$.log.level", checkLevel(c.Log.Level)},
		{"$.log.format", checkOneOf(c.Log.Format, "auto", "json", "text")},
		{"$.limits.maxClients", checkRange(c.Limits.MaxClients, 1, 1_000_000)},
		{"$.limits.loops", checkRange(c.Limits.Loops, 1, 256)},
	} {
		if check.err != nil {
			return &fieldError{check.path, check.err}
		}
	}
	return nil
}

func required(s string) error {
	if s == "" {
		return fmt.Errorf("%w: it must be given", armor.ErrInvalid)
	}
	return nil
}

func checkNode(s string) error {
	_, err := armor.ParseNodeID(s)
	return err
}

func checkClockSkew(d time.Duration) error {
	if d < time.Second || d > time.Minute {
		return fmt.Errorf("%w: %s is not 1s to 1m", armor.ErrInvalid, d)
	}
	return nil
}

func checkDelay(d time.Duration) error {
	if d < 0 || d > 10*time.Minute {
		return fmt.Errorf("%w: %s is not 0s to 10m", armor.ErrInvalid, d)
	}
	return nil
}

func checkEvery(d time.Duration) error {
	if d != 0 && (d < time.Minute || d > 720*time.Hour) {
		return fmt.Errorf("%w: %s is not 1m to 720h, nor 0s", armor.ErrInvalid, d)
	}
	return nil
}

// checkDirectory keeps saved states away from what the node itself keeps there.
func (s Snapshots) checkDirectory(dataDir string) error {
	for _, taken := range []string{dataDir, filepath.Join(dataDir, "snapshots")} {
		if filepath.Clean(s.Directory) == filepath.Clean(taken) {
			return fmt.Errorf("%w: the node keeps files of its own in %s: name a folder of its own, such as %s", armor.ErrInvalid, taken,
				filepath.Join(dataDir, "saved"))
		}
	}
	return nil
}

// checkCluster also demands that the name makes a trust domain.
func checkCluster(s string) error {
	if err := armor.CheckName("cluster", s); err != nil {
		return err
	}
	_, err := armor.ParseIdentity("spiffe://" + strings.ToLower(s) + ".armor.internal/node/n")
	return err
}

func checkListen(s string) error {
	_, _, err := SplitAddress(s)
	return err
}

// checkAdvertise accepts nothing, or a host that others can dial.
func checkAdvertise(s string) error {
	if s == "" {
		return nil
	}
	host, _, err := SplitAddress(s)
	if err == nil && isWildcard(host) {
		err = fmt.Errorf("%w: %q names no host that others could dial", armor.ErrInvalid, s)
	}
	return err
}

// checkGossipAdvertise wants an IP address: memberlist tells addresses, not names.
func checkGossipAdvertise(g Gossip) error {
	if g.Advertise == "" {
		return nil
	}
	host, _, err := SplitAddress(g.Advertise)
	if err != nil {
		return err
	}
	if ip, err := netip.ParseAddr(host); err != nil || ip.IsUnspecified() {
		return fmt.Errorf("%w: %q must be an IP address and a port", armor.ErrInvalid, g.Advertise)
	}
	return nil
}

func checkEnvironments(names []string) error {
	for _, n := range names {
		if err := armor.CheckName("environment", n); err != nil {
			return err
		}
	}
	return nil
}

func (p Proxy) check() error {
	for _, s := range p.From {
		n, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			return fmt.Errorf("%w: %q is not a network such as 10.0.9.0/28", armor.ErrInvalid, s)
		case n != n.Masked():
			return fmt.Errorf("%w: network %s has bits set beyond its length: write %s", armor.ErrInvalid, n, n.Masked())
		case n.Bits() == 0:
			return fmt.Errorf("%w: network %s would let every client say that it is another: name the load balancers", armor.ErrInvalid, n)
		}
	}
	return nil
}

// maxSocket is what sun_path holds, less its terminating zero (unix(7)).
const maxSocket = 107

func checkSocket(path string) error {
	if len(path) > maxSocket {
		return fmt.Errorf("%w: the path of a Unix socket may have at most %d bytes, and %s has %d: give adminSocket a shorter one",
			armor.ErrInvalid, maxSocket, path, len(path))
	}
	return nil
}

func checkAddresses(all []string) error {
	for _, a := range all {
		if err := checkAdvertise(a); err != nil {
			return err
		}
	}
	return nil
}

func (j Join) check() error {
	if err := checkAddresses(j.Addresses); err != nil {
		return err
	}
	if len(j.Addresses) > 0 && j.TokenFile == "" {
		return fmt.Errorf("%w: joining also needs join.tokenFile, which holds what armorctl join-token create printed", armor.ErrInvalid)
	}
	return nil
}

func checkLevel(s string) error {
	if err := new(slog.Level).UnmarshalText([]byte(s)); err != nil {
		return fmt.Errorf("%w: %q is not one of debug, info, warn, error", armor.ErrInvalid, s)
	}
	return nil
}

func checkOneOf(s string, allowed ...string) error {
	if !slices.Contains(allowed, s) {
		return fmt.Errorf("%w: %q is not one of %s", armor.ErrInvalid, s, strings.Join(allowed, ", "))
	}
	return nil
}

func checkRange(n, low, high int) error {
	if n < low || n > high {
		return fmt.Errorf("%w: %d is not between %d and %d", armor.ErrInvalid, n, low, high)
	}
	return nil
}

// SplitAddress reads host:port with a numeric port.
func SplitAddress(s string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%w: address %q is not host:port", armor.ErrInvalid, s)
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%w: port of address %q is not a number up to 65535", armor.ErrInvalid, s)
	}
	return host, port, nil
}

// isWildcard reports whether a listen host means every address of the machine.
func isWildcard(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}
