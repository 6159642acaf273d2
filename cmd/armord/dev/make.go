package dev

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armord/config"
)

// What `armord dev` calls its things.
const (
	clusterName     = "armor-dev"
	environmentName = "dev"
	identityName    = "demo"
	poolBudget      = 20
	lifetime        = 365 * 24 * time.Hour
)

// configure writes what each node needs before it can start. At a later start it only
// renews the password, which the URL may have changed.
func (c *cluster) configure() error {
	if !c.dir.mark.Made {
		if err := c.makeNodes(); err != nil {
			return err
		}
	}
	for k := 1; k <= c.dir.mark.Nodes; k++ {
		cfg, err := config.Load(filepath.Join(c.dir.node(k), "armord.yaml"))
		if err != nil {
			return err
		}
		if err := c.writeSecrets(cfg.SecretsDir); err != nil {
			return err
		}
		c.configs = append(c.configs, cfg)
	}
	return nil
}

// makeNodes writes each node's configuration, with ports that differ, and its server
// certificate.
func (c *cluster) makeNodes() error {
	ca, key, err := c.makeServerCA()
	if err != nil {
		return err
	}
	used := map[int]bool{c.dir.mark.Port: true}
	all := make([]config.Config, c.dir.mark.Nodes)
	for i := range all {
		if all[i], err = c.nodeConfig(i+1, used); err != nil {
			return err
		}
	}
	for i, cfg := range all {
		for k, other := range all {
			if k != i {
				cfg.Gossip.Join = append(cfg.Gossip.Join, other.Gossip.Listen)
			}
		}
		if i > 0 {
			cfg.Join = config.Join{Addresses: []string{all[0].Peer.Listen}, TokenFile: c.tokenFile(i + 1)}
		}
		if err := c.writeNode(i+1, cfg); err != nil {
			return err
		}
		if err := writeServerCertificate(ca, key, cfg.Client); err != nil {
			return err
		}
	}
	return nil
}

// writeNode writes the configuration of node k.
func (c *cluster) writeNode(k int, cfg config.Config) error {
	if err := os.MkdirAll(cfg.SecretsDir, 0o700); err != nil {
		return err
	}
	text, err := yaml.MarshalWithOptions(cfg, yaml.OmitEmpty())
	if err != nil {
		return err
	}
	return file.Replace(filepath.Join(c.dir.node(k), "armord.yaml"), text, 0o600)
}

func (c *cluster) tokenFile(k int) string { return filepath.Join(c.dir.node(k), "join.token") }

// nodeConfig is node k's configuration, on ports that are not in used.
func (c *cluster) nodeConfig(k int, used map[int]bool) (config.Config, error) {
	in := func(name string) string { return filepath.Join(c.dir.node(k), name) }
	cfg := config.Config{Node: nodeName(k), Cluster: clusterName, DataDir: in("data"), SecretsDir: in("secrets")}
	cfg.Drain.Delay = time.Second // the balancer here finds out by itself, and a developer waits for the end
	cfg.Client.CertFile, cfg.Client.KeyFile = in("server.crt"), in("server.key")
	for _, address := range []*string{&cfg.Client.Listen, &cfg.Peer.Listen, &cfg.Gossip.Listen, &cfg.Ops.Listen} {
		port, err := config.ChoosePort(loopback)
		for err == nil && used[port] {
			port, err = config.ChoosePort(loopback)
		}
		if err != nil {
			return cfg, err
		}
		used[port] = true
		*address = net.JoinHostPort(loopback, strconv.Itoa(port))
	}
	return cfg, nil
}

// makeServerCA makes the CA that clients verify the nodes with.
func (c *cluster) makeServerCA() (*x509.Certificate, crypto.Signer, error) {
	ca, key, err := pki.NewCA(pki.CAConfig{Kind: pki.ServerCA, CommonName: "armor dev servers", Lifetime: lifetime})
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(filepath.Dir(c.serverRoot()), 0o700); err != nil {
		return nil, nil, err
	}
	return ca, key, writePair(c.serverRoot(), filepath.Join(filepath.Dir(c.serverRoot()), "ca.key"), key, ca)
}

func (c *cluster) serverRoot() string { return c.dir.in("ca", "dev-server", "ca.crt") }

// writeServerCertificate makes the certificate that a node shows to clients.
func writeServerCertificate(ca *x509.Certificate, caKey crypto.Signer, to config.Client) error {
	key, err := pki.NewKey()
	if err != nil {
		return err
	}
	cert, err := pki.SignLeaf(ca, caKey, key.Public(), pki.LeafConfig{
		Server: true, DNSNames: []string{"localhost"},
		IPs: []netip.Addr{netip.MustParseAddr(loopback), netip.IPv6Loopback()}, Lifetime: lifetime - 24*time.Hour, // no longer than its CA
	})
	if err != nil {
		return fmt.Errorf("sign server certificate: %w", err)
	}
	return writePair(to.CertFile, to.KeyFile, key, cert, ca)
}

// writePair writes certificates and the first one's key.
func writePair(certFile, keyFile string, key crypto.Signer, certs ...*x509.Certificate) error {
	text, err := pki.EncodePrivateKeyPEM(key)
	if err != nil {
		return err
	}
	return errors.Join(file.Replace(keyFile, text, 0o600), file.Replace(certFile, pki.EncodeCertificatesPEM(certs...), 0o644))
}

// writeSecrets writes the server's password and CA where the node looks for them,
// bound to the one host that they may be used with.
func (c *cluster) writeSecrets(dir string) error {
	if c.server.caFile != "" {
		pem, err := os.ReadFile(c.server.caFile)
		if err != nil {
			return fmt.Errorf("sslrootcert of the URL: %w", err)
		}
		if err := file.Replace(filepath.Join(dir, c.server.database+".pem"), pem, 0o600); err != nil {
			return err
		}
	}
	path := filepath.Join(dir, c.server.database+".yaml")
	if c.server.password == "" {
		return file.Remove(path)
	}
	text, err := yaml.Marshal(struct {
		Passwords []string `yaml:"passwords"`
		Hosts     []string `yaml:"hosts"`
	}{[]string{c.server.password}, []string{c.server.host}})
	if err != nil {
		return err
	}
	return file.Replace(path, text, 0o600)
}

// armorctl runs an operator's command and returns its stdout. What it said on stderr
// is in the error.
func (c *cluster) armorctl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.tools.armorctl, args...)
	cmd.Env = append(os.Environ(), "ARMOR_CONFIG="+c.operatorContext())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("armorctl %s: %w: %s", strings.Join(args[:min(2, len(args))], " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

func (c *cluster) operatorContext() string { return c.dir.in("armorctl.yaml") }
