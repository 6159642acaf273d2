package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/file"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/fault"
	"github.com/armordb/armordb/cmd/armorctl/issue"
	"github.com/armordb/armordb/rpc"
)

// contextFile is ARMOR_CONFIG: the clusters that this operator knows.
type contextFile struct {
	Current  string          `yaml:"current,omitempty"`
	Contexts []clusterAccess `yaml:"contexts"`

	path string
}

// clusterAccess is a context: how this operator reaches one cluster. File names that
// are not absolute are taken from the context file's folder.
type clusterAccess struct {
	Name string `yaml:"name" json:"name"`
	// Cluster is the cluster's name, ClusterID what requests are signed for.
	Cluster   string `yaml:"cluster" json:"cluster"`
	ClusterID string `yaml:"clusterId,omitempty" json:"clusterId,omitempty"`
	Operator  string `yaml:"operator" json:"operator"`
	// Addresses are peer addresses of nodes; any one that answers will do.
	Addresses []string `yaml:"addresses" json:"addresses"`
	// Members are where the cluster's members said to be when one answered last: for when
	// none of Addresses does.
	Members []string `yaml:"members,omitempty" json:"members,omitempty"`
	// Pins are the keys of the members, likewise: a node that has one is believed also when its
	// certificate has ended.
	Pins     map[armor.NodeID]string `yaml:"pins,omitempty" json:"-"`
	CertFile string                  `yaml:"certFile" json:"certFile"`
	KeyFile  string                  `yaml:"keyFile" json:"keyFile"`
	// PeerCAFile is the CA that signs nodes and operators, or two while one takes the other's place.
	PeerCAFile string `yaml:"peerCaFile" json:"peerCaFile"`
	// ServerCAFile is the CA that PostgreSQL clients verify the nodes with. Only
	// connect and cert issue use it.
	ServerCAFile string `yaml:"serverCaFile,omitempty" json:"serverCaFile,omitempty"`
}

// contextPath is where the context file lies.
func (a *app) contextPath() (string, error) {
	if path := a.env("ARMOR_CONFIG"); path != "" {
		return filepath.Abs(path)
	}
	if base := a.env("XDG_CONFIG_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "armor", "config.yaml"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fault.Hinted(&fault.Usage{Err: fmt.Errorf("find the context file: %w", err)}, "set ARMOR_CONFIG to its path")
	}
	return filepath.Join(home, ".config", "armor", "config.yaml"), nil
}

// loadContexts reads the context file; one that is not there holds no contexts.
func (a *app) loadContexts() (*contextFile, error) {
	path, err := a.contextPath()
	if err != nil {
		return nil, err
	}
	f := &contextFile{path: path}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the context file: %w", err)
	}
	if err := issue.CheckSecret(path); err != nil {
		return nil, err
	}
	if err := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(f); err != nil {
		return nil, fmt.Errorf("%w: context file %s: %w", armor.ErrInvalid, path, err)
	}
	return f, nil
}

func (f *contextFile) save() error {
	text, err := yaml.Marshal(f)
	if err != nil {
		return fmt.Errorf("write the context file: %w", err)
	}
	if err := issue.MakeFolder(filepath.Dir(f.path)); err != nil {
		return err
	}
	return file.Replace(f.path, text, issue.Secret)
}

func (f *contextFile) find(name string) (clusterAccess, bool) {
	i := slices.IndexFunc(f.Contexts, func(c clusterAccess) bool { return c.Name == name })
	if i < 0 {
		return clusterAccess{}, false
	}
	return f.Contexts[i], true
}

// put adds a context. The first one becomes the current one.
func (f *contextFile) put(c clusterAccess) error {
	if _, taken := f.find(c.Name); taken {
		return fault.Hinted(fmt.Errorf("%w: there is a context %q", armor.ErrConflict, c.Name),
			"armorctl context remove %s, or choose another name", c.Name)
	}
	if err := armor.CheckName("context", c.Name); err != nil {
		return err
	}
	f.Contexts = append(f.Contexts, c)
	if f.Current == "" {
		f.Current = c.Name
	}
	return nil
}

// in makes a file name of a context absolute.
func (f *contextFile) in(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(f.path), name)
}

// chosen is the context that the command works with.
func (a *app) chosen() (*contextFile, clusterAccess, error) {
	f, err := a.loadContexts()
	if err != nil {
		return nil, clusterAccess{}, err
	}
	name := a.globals.context
	if name == "" {
		name = f.Current
	}
	if name == "" {
		return nil, clusterAccess{}, fault.Hinted(&fault.Usage{Err: fmt.Errorf("no cluster is known: %s holds no current context", f.path)},
			"armorctl init on the first node, or armorctl context add NAME")
	}
	c, found := f.find(name)
	if !found {
		return nil, clusterAccess{}, fault.Hinted(fmt.Errorf("%w: there is no context %q in %s", armor.ErrNotFound, name, f.path),
			"armorctl context list")
	}
	if len(a.globals.addresses) > 0 {
		c.Addresses, c.Members = a.globals.addresses, nil
	}
	c.CertFile, c.KeyFile = f.in(c.CertFile), f.in(c.KeyFile)
	c.PeerCAFile, c.ServerCAFile = f.in(c.PeerCAFile), f.in(c.ServerCAFile)
	return f, c, nil
}

// connect opens the API of the chosen context's cluster; nothing is dialled yet.
func (a *app) connect() (*rpc.Client, error) {
	_, c, err := a.chosen()
	if err != nil {
		return nil, err
	}
	a.tell("context %s: cluster %s by %s as operator %s", c.Name, c.Cluster, strings.Join(c.places(), ", "), c.Operator)
	client, err := c.open(a.now())
	if err != nil {
		return nil, err
	}
	a.used = append(a.used, usedContext{c.Name, client})
	return client, nil
}

// places are all addresses to try, each once.
func (c clusterAccess) places() []string {
	all := slices.Clone(c.Addresses)
	for _, address := range c.Members {
		if !slices.Contains(all, address) {
			all = append(all, address)
		}
	}
	return all
}

// usedContext is a context whose cluster the command has spoken with, or tried to.
type usedContext struct {
	name   string
	client *rpc.Client
}

// keepMembers writes down what answers said of where the members are. That it cannot is no
// failure of the command.
func (a *app) keepMembers() {
	for _, u := range a.used {
		members := u.client.Members()
		if len(members) == 0 {
			continue
		}
		slices.Sort(members)
		pins := map[armor.NodeID]string{}
		for node, key := range u.client.Pins() {
			pins[node] = key.String()
		}
		if err := a.keepMembersOf(u.name, u.client.Cluster().ID, members, pins); err != nil {
			a.tell("the members' addresses are not kept: %v", err)
		}
		if err := a.keepPeerCAsOf(u.name, u.client.Cluster()); err != nil {
			a.say("the cluster's peer CAs are not kept in the file that context %s names: %v", u.name, err)
		}
	}
}

func (a *app) keepMembersOf(name, cluster string, members []string, pins map[armor.NodeID]string) error {
	f, err := a.loadContexts() // as it is now, and with its paths as they are written
	if err != nil {
		return err
	}
	i := slices.IndexFunc(f.Contexts, func(c clusterAccess) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	c := &f.Contexts[i]
	if c.ClusterID != "" {
		cluster = c.ClusterID // it stays what it is
	}
	if slices.Equal(c.Members, members) && maps.Equal(c.Pins, pins) && c.ClusterID == cluster {
		return nil
	}
	c.Members, c.Pins, c.ClusterID = members, pins, cluster
	return f.save()
}

// keepPeerCAsOf follows the change of the CA of nodes and operators in the context's file: it takes the
// next one, once one that it knows has endorsed it, and gives up the one that was retired.
func (a *app) keepPeerCAsOf(name string, told armor.Cluster) error {
	f, err := a.loadContexts()
	if err != nil || told.ID == "" {
		return err
	}
	c, found := f.find(name)
	if !found {
		return nil
	}
	path := f.in(c.PeerCAFile)
	kept, err := issue.Certificates(path)
	if err != nil {
		return err
	}
	cas := slices.DeleteFunc(slices.Clone(kept), func(ca *x509.Certificate) bool {
		return !slices.ContainsFunc(told.PeerCAs(), func(der []byte) bool { return bytes.Equal(der, ca.Raw) })
	})
	if next, ok := pki.Endorsed(kept, told); ok && !slices.ContainsFunc(cas, next.Equal) {
		cas = append(cas, next)
	}
	if len(cas) == 0 || slices.EqualFunc(cas, kept, (*x509.Certificate).Equal) {
		return nil
	}
	a.say("the CAs of nodes and operators have changed, and %s holds those of now", path)
	return file.Replace(path, pki.EncodeCertificatesPEM(cas...), issue.Public)
}

// reach connects for a command that takes no longer than patience. done gives up both the
// client and its ctx.
func (a *app) reach(ctx context.Context) (client *rpc.Client, within context.Context, done func(), err error) {
	client, err = a.connect()
	if err != nil {
		return nil, ctx, nil, err
	}
	within, cancel := a.within(ctx, patience)
	return client, within, func() {
		cancel()
		client.Close()
	}, nil
}

// open makes a client, of a certificate that is valid at a time.
func (c clusterAccess) open(now time.Time) (*rpc.Client, error) {
	if err := issue.CheckSecret(c.KeyFile); err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("%w: operator certificate of context %s: %w", armor.ErrInvalid, c.Name, err)
	}
	if err := c.checkValidity(pair.Leaf, now); err != nil {
		return nil, err
	}
	cfg, err := c.peerTrust()
	if err != nil {
		return nil, err
	}
	cfg.Certificate = pair
	return rpc.Open(cfg)
}

// peerTrust is how nodes of the context's cluster are reached, and what they are believed by.
func (c clusterAccess) peerTrust() (rpc.ClientConfig, error) {
	cfg := rpc.ClientConfig{Addresses: c.places(), Cluster: c.Cluster, ClusterID: c.ClusterID, Pins: map[armor.NodeID]armor.Digest{}}
	var err error
	if cfg.PeerCAs, err = issue.Certificates(c.PeerCAFile); err != nil {
		return cfg, fmt.Errorf("peer CA of context %s: %w", c.Name, err)
	}
	for node, key := range c.Pins {
		if cfg.Pins[node], err = armor.ParseDigest(key); err != nil {
			return cfg, fmt.Errorf("context %s: pin of node %s: %w", c.Name, node, err)
		}
	}
	return cfg, nil
}

// checkValidity says before anybody is asked what every node would say by a TLS alert.
func (c clusterAccess) checkValidity(leaf *x509.Certificate, now time.Time) error {
	switch {
	case now.After(leaf.NotAfter):
		return fault.Hinted(fmt.Errorf("%w: the certificate of operator %s (%s, context %s) ended at %s", armor.ErrExpired, c.Operator,
			c.CertFile, c.Name, stamp(leaf.NotAfter)),
			"another operator with role %s renews it: armorctl operator renew %s --peer-ca DIR --out FILE; if none is left: armorctl operator rescue",
			armor.CAAdmin, c.Operator)
	case now.Before(leaf.NotBefore):
		return fault.Hinted(fmt.Errorf("%w: the certificate of operator %s (%s, context %s) is not valid before %s", armor.ErrInvalid, c.Operator,
			c.CertFile, c.Name, stamp(leaf.NotBefore)), "is this machine's clock right?")
	}
	return nil
}
