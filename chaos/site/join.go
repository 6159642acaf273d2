package site

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// nodeFile is what is needed of a node's armord.yaml.
type nodeFile struct {
	Peer struct {
		Listen string `yaml:"listen"`
	} `yaml:"peer"`
	Client struct {
		Listen string `yaml:"listen"`
	} `yaml:"client"`
}

func (n *Node) config() (text string, f nodeFile, err error) {
	path := filepath.Join(n.Dir, "armord.yaml")
	b, err := os.ReadFile(path)
	if err == nil {
		err = yaml.Unmarshal(b, &f)
	}
	if err != nil {
		return "", f, fmt.Errorf("%s: %w", path, err)
	}
	return string(b), f, nil
}

// PeerAddress is where other nodes and operators reach the node.
func (n *Node) PeerAddress() (string, error) {
	_, f, err := n.config()
	return f.Peer.Listen, err
}

// Admit has one more node join, with a configuration made from that of another, and waits
// until it serves. The other must not be the first one, which has nobody to join.
func (c *Cluster) Admit(ctx context.Context, like *Node, name string, voter bool) (*Node, error) {
	n := &Node{Name: name, Dir: filepath.Join(c.Dir, name)}
	if err := c.copyNode(like, n); err != nil {
		return nil, fmt.Errorf("make node %s: %w", name, err)
	}
	c.Nodes = append(c.Nodes, n)
	return n, c.Join(ctx, n, voter)
}

// Join has a node that has no data join, and waits until it serves.
func (c *Cluster) Join(ctx context.Context, n *Node, voter bool) error {
	token, err := c.Armorctl(ctx, "join-token", "create", n.Name, "--voter="+strconv.FormatBool(voter))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(n.Dir, "join.token"), token, 0o600); err != nil {
		return err
	}
	if err := c.Start(n); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err = Poll(ctx, func() ([]byte, error) {
		return c.Armorctl(ctx, "node", "approve", n.Name, "--peer-ca", filepath.Join(c.Dir, "ca", "dev-peer"))
	})
	if err != nil {
		return fmt.Errorf("admit node %s: %w", n.Name, err)
	}
	client, err := c.Demo()
	if err != nil {
		return err
	}
	_, err = Poll(ctx, func() (struct{}, error) { return struct{}{}, client.Ping(ctx, n) })
	return err
}

// copyNode gives a node the files of another but its data, and ports of its own.
func (c *Cluster) copyNode(like, n *Node) error {
	if err := os.MkdirAll(filepath.Join(n.Dir, "secrets"), 0o700); err != nil {
		return err
	}
	secrets, err := filepath.Glob(filepath.Join(like.Dir, "secrets", "*"))
	if err != nil {
		return err
	}
	for _, path := range append(secrets, filepath.Join(like.Dir, "server.crt"), filepath.Join(like.Dir, "server.key")) {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(strings.Replace(path, like.Dir, n.Dir, 1), b, 0o600); err != nil {
			return err
		}
	}
	return c.configure(like, n)
}

// configure writes the armord.yaml of a node like another.
func (c *Cluster) configure(like, n *Node) error {
	text, f, err := like.config()
	if err != nil {
		return err
	}
	text = strings.ReplaceAll(text, like.Dir, n.Dir)
	text = strings.Replace(text, "node: "+like.Name, "node: "+n.Name, 1)
	for line := range strings.Lines(text) {
		key, address, ok := strings.Cut(strings.TrimSpace(line), ": ")
		host, _, err := net.SplitHostPort(address)
		if !ok || key != "listen" || err != nil {
			continue
		}
		port, err := FreePort()
		if err != nil {
			return err
		}
		if address == f.Client.Listen {
			n.Port = port
		}
		text = strings.ReplaceAll(text, address, net.JoinHostPort(host, strconv.Itoa(port)))
	}
	return os.WriteFile(filepath.Join(n.Dir, "armord.yaml"), []byte(text), 0o600)
}
