package main

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/pki"
	"github.com/armordb/armordb/cmd/armorctl/issue"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"armorctl": main})
}

// Where a script's node is kept, and the knocks at an address that never answers.
type (
	fakeKey struct{}
	muteKey struct{}
	testKey struct{}
)

// TestScripts runs the program itself against a node of this process.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			node := startFake(t, shortDir(t))
			env.Values[testKey{}] = t
			env.Values[fakeKey{}] = node
			env.Setenv("ARMOR_CONFIG", filepath.Join(env.WorkDir, "config", "config.yaml"))
			env.Setenv("SOCKET", node.socket)
			env.Setenv("ADDRESS", node.listen.Addr().String())
			mute, knocks := startMute(t)
			env.Values[muteKey{}] = knocks
			env.Setenv("MUTE", mute)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "has": has, "node": nodeCommand, "client": clientCommand, "stranger": strangerCommand, "holds": holdsCommand, "joins": joinsCommand,
			"mode": modeIs, "getvalue": getValue, "hangs": hangsCommand, "knocks": knocksCommand,
			"secret": secretCommand, "selectors": selectorsCommand, "ended": endedCommand, "othercluster": otherClusterCommand,
		},
	})
}

// shortDir is for a socket, whose path is short; a script's folder need not be.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "armorctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// othercluster starts a node of another cluster, whose admin socket is $OTHER, at $OTHERADDRESS.
func otherClusterCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: othercluster")
	}
	t := ts.Value(testKey{}).(*testing.T)
	node := startFake(t, shortDir(t))
	ts.Setenv("OTHER", node.socket)
	ts.Setenv("OTHERADDRESS", node.listen.Addr().String())
}

// exits CODE ARMORCTL-ARGUMENTS runs armorctl and wants that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE ARGUMENTS")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec("armorctl", args[1:]...); err != nil {
		if _, scanErr := fmt.Sscanf(err.Error(), "exit status %d", &got); scanErr != nil {
			ts.Fatalf("armorctl %s: %v", strings.Join(args[1:], " "), err)
		}
	}
	ts.Logf("[stdout]\n%s[stderr]\n%s", ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	if got != want {
		ts.Fatalf("armorctl %s: exit code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// has stdout|stderr PATH VALUE compares a value of the JSON that was written; PATH has
// dots between names and numbers. `! has … PATH` wants it absent.
func has(ts *testscript.TestScript, neg bool, args []string) {
	value, found := lookup(ts, args)
	if neg {
		if found {
			ts.Fatalf("%s has %s: %s", args[0], args[1], value)
		}
		return
	}
	if !found || value != args[2] {
		ts.Fatalf("%s of %s is %q, want %q", args[1], args[0], value, args[2])
	}
}

// getvalue stdout PATH VARIABLE keeps a value of the JSON for later.
func getValue(ts *testscript.TestScript, neg bool, args []string) {
	value, found := lookup(ts, args)
	if neg || !found {
		ts.Fatalf("%s has no %s", args[0], args[1])
	}
	ts.Setenv(args[2], value)
}

func lookup(ts *testscript.TestScript, args []string) (string, bool) {
	if len(args) < 2 {
		ts.Fatalf("usage: has|getvalue stdout|stderr PATH …")
	}
	var v any
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &v); err != nil {
		ts.Fatalf("%s is not JSON: %v", args[0], err)
	}
	for part := range strings.SplitSeq(args[1], ".") {
		var found bool
		if v, found = step(v, part); !found {
			return "", false
		}
	}
	if text, ok := v.(string); ok {
		return text, true
	}
	text, err := json.Marshal(v)
	ts.Check(err)
	return string(text), true
}

func step(v any, part string) (any, bool) {
	switch x := v.(type) {
	case map[string]any:
		inner, found := x[part]
		return inner, found
	case []any:
		if part == "length" {
			return len(x), true
		}
		i, err := strconv.Atoi(part)
		if err != nil || i >= len(x) {
			return nil, false
		}
		return x[i], true
	}
	return nil, false
}

// node MISHAP on|off makes something go wrong at the node.
func nodeCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: node MISHAP on|off")
	}
	node := ts.Value(fakeKey{}).(*fakeNode)
	on := args[1] == "on"
	if args[0] == "poisoned" && on {
		ts.Check(node.poison(365 * day))
		return
	}
	node.setMishap(func(m *mishaps) {
		switch args[0] {
		case "no-leader":
			m.noLeader = on
		case "uncertain":
			m.uncertain = on
		case "silent":
			m.silent = on
		case "fenced":
			m.fenced = on
		case "hung":
			m.hung = on
		case "damaged":
			m.damaged = on
		case "differs":
			m.differs = on
		case "clock-ahead":
			m.clockAhead = map[bool]time.Duration{true: 3 * time.Second}[on]
		default:
			ts.Fatalf("no such mishap: %s", args[0])
		}
	})
}

// client ID DIR DATABASE ROLE connects with the certificate in DIR; a refusal is
// remembered under ID.
func clientCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: client ID DIR DATABASE ROLE")
	}
	ts.Check(ts.Value(fakeKey{}).(*fakeNode).arrive(args[0], ts.MkAbs(args[1]), args[2], args[3]))
}

// stranger SOURCE SUBJECT CURE fails in its handshake.
func strangerCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: stranger SOURCE SUBJECT CURE")
	}
	n := ts.Value(fakeKey{}).(*fakeNode)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.unproven = append(n.unproven, armor.Unproven{
		At: time.Now(), Source: netip.MustParseAddrPort(args[0]), Times: 2, Error: "x509: certificate signed by unknown authority",
		Subject: args[1], Issuer: "CN=upper", Serial: "4f1a", Sent: 1, Cure: args[2], Revision: 7,
	})
}

// holds KIND NAME LEFT LIFE FAULT has the node tell of a certificate; "-" is nothing.
func holdsCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 5 {
		ts.Fatalf("usage: holds KIND NAME LEFT LIFE FAULT")
	}
	left, err := parseDuration(args[2])
	ts.Check(err)
	life, err := parseDuration(args[3])
	ts.Check(err)
	word := func(s string) string { return strings.TrimPrefix(s, "-") }
	ends := time.Now().Add(left)
	n := ts.Value(fakeKey{}).(*fakeNode)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held = append(n.held, armor.HeldCertificate{
		Kind: args[0], Name: word(args[1]), NotBefore: ends.Add(-life), NotAfter: ends, Fault: word(args[4]), Pools: []string{"production/orders"},
	})
}

// joins TOKENFILE lets a new node ask to join.
func joinsCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: joins TOKENFILE")
	}
	ts.Check(ts.Value(fakeKey{}).(*fakeNode).join(ts.ReadFile(args[0])))
}

// hangs waits until a proposal hangs at the node.
func hangsCommand(ts *testscript.TestScript, _ bool, _ []string) {
	await(ts, ts.Value(fakeKey{}).(*fakeNode).hanging)
}

// knocks waits until somebody has come to the address that never answers.
func knocksCommand(ts *testscript.TestScript, _ bool, _ []string) {
	await(ts, ts.Value(muteKey{}).(<-chan struct{}))
}

// selectors FILE COUNT writes a list of that many certificates.
func selectorsCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: selectors FILE COUNT")
	}
	count, err := strconv.Atoi(args[1])
	ts.Check(err)
	var b strings.Builder
	fmt.Fprintln(&b, "# what the old CA has issued")
	for i := range count {
		fmt.Fprintf(&b, "certificate %064x/%x\n", 0xca, 1<<40+i)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b.String()), 0o600))
}

// secret FILE NAME DIR reads a Secret of Kubernetes as kubectl does, and puts what is in it into a folder.
func secretCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: secret FILE NAME DIR")
	}
	var s struct {
		APIVersion string                `yaml:"apiVersion"`
		Kind       string                `yaml:"kind"`
		Metadata   struct{ Name string } `yaml:"metadata"`
		Type       string                `yaml:"type"`
		Data       map[string]string     `yaml:"data"`
	}
	ts.Check(yaml.UnmarshalWithOptions([]byte(ts.ReadFile(args[0])), &s, yaml.Strict()))
	if s.APIVersion != "v1" || s.Kind != "Secret" || s.Metadata.Name != args[1] || s.Type != "kubernetes.io/tls" || len(s.Data) != 3 {
		ts.Fatalf("not the Secret that was meant: %s %s %q of type %s", s.APIVersion, s.Kind, s.Metadata.Name, s.Type)
	}
	ts.Check(os.MkdirAll(ts.MkAbs(args[2]), 0o700))
	for name, text := range s.Data {
		content, err := base64.StdEncoding.DecodeString(text)
		ts.Check(err)
		ts.Check(os.WriteFile(filepath.Join(ts.MkAbs(args[2]), name), content, 0o600))
	}
}

// ended DURATION CA FILE signs a certificate of app/one that ended so long ago.
func endedCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: ended DURATION CA FILE")
	}
	ago, err := parseDuration(args[0])
	ts.Check(err)
	ca, err := issue.Certificate(filepath.Join(ts.MkAbs(args[1]), "ca.crt"))
	ts.Check(err)
	signer, err := pki.ParsePrivateKeyPEM([]byte(ts.ReadFile(filepath.Join(args[1], "ca.key"))))
	ts.Check(err)
	key, err := pki.NewKey()
	ts.Check(err)
	id, err := url.Parse("spiffe://production.acme.internal/app/one")
	ts.Check(err)
	end := time.Now().Add(-ago)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		NotBefore: end.Add(-time.Hour), NotAfter: end, URIs: []*url.URL{id}, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ca, key.Public(), signer)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
}

func await(ts *testscript.TestScript, event <-chan struct{}) {
	select {
	case <-event:
	case <-time.After(time.Minute):
		ts.Fatalf("it did not happen")
	}
}

// mode FILE OCTAL wants a file's permissions.
func modeIs(ts *testscript.TestScript, neg bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); (got == args[1]) == neg {
		ts.Fatalf("mode of %s is %s", args[0], got)
	}
}
