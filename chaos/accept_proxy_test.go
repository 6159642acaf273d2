package chaos

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/armordb/armordb/chaos/site"
)

// theBalancer is where the test's load balancer connects from.
const theBalancer = "127.0.0.2"

const proxyIdentities = `apiVersion: armor/v1
kind: Identity
metadata: {name: near, environment: dev}
spec:
  id: %[1]s-near
  owner: acceptance
  grants:
  - {database: app, roles: [app], pool: app, cidrs: [127.0.0.1/32]}
---
apiVersion: armor/v1
kind: Identity
metadata: {name: balancer-alone, environment: dev}
spec:
  id: %[1]s-balancer-alone
  owner: acceptance
  grants:
  - {database: app, roles: [app], pool: app, cidrs: [127.0.0.2/32]}
`

// TestAddressBehindALoadBalancerIsTheClients: haproxy in front of a node that has been
// told of it. The node's event loops take the connection over as any other.
func TestAddressBehindALoadBalancerIsTheClients(t *testing.T) {
	a := acceptance(t)
	n := a.Nodes[0]
	a.trustBalancer(t, n)
	file := filepath.Join(t.TempDir(), "identities.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, proxyIdentities, demoIdentity), 0o600); err != nil {
		t.Fatal(err)
	}
	a.ctl(t, "apply", "-f", file, "--yes", "--wait", "all")
	_, near := a.issued(t, "near")
	_, balancer := a.issued(t, "balancer-alone")
	for _, version := range []string{"send-proxy", "send-proxy-v2"} {
		front := &site.Node{Name: n.Name, Port: haproxy(t, "source "+theBalancer, fmt.Sprintf("server %s 127.0.0.1:%d %s", n.Name, n.Port, version)), Dir: n.Dir}
		conn, err := near.ConnectTo(t.Context(), front, "app")
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := site.Exec(t.Context(), conn, "select repeat('x', 100000)"); err != nil {
				t.Error(err)
			}
		}
		source := conn.Conn().LocalAddr().String()
		if list := string(a.ctl(t, "session", "list")); !strings.Contains(list, source) {
			t.Errorf("%s is not in the list of sessions:\n%s", source, list)
		}
		site.CloseConn(t.Context(), conn)
		a.refused(t, balancer, front, "app", site.AppRole, "28000", "may not connect from 127.0.0.1")
	}
	conn, err := near.ConnectTo(t.Context(), n, "app") // without a balancer, and without a header
	if err != nil {
		t.Fatal(err)
	}
	site.CloseConn(t.Context(), conn)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(theBalancer)}, Timeout: 10 * time.Second}
	silent, err := d.DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", n.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	_ = silent.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := silent.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil {
		t.Fatal(err)
	}
	if n, err := silent.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a balancer without a header is answered: %v", err)
	}
}

// trustBalancer restarts a node that takes the balancer's word.
func (a *arena) trustBalancer(t *testing.T, n *site.Node) {
	t.Helper()
	path := filepath.Join(n.Dir, "armord.yaml")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const none = "proxyProtocol: {}"
	if !bytes.Contains(before, []byte(none)) {
		t.Fatalf("%s does not say %s:\n%s", path, none, before)
	}
	after := bytes.Replace(before, []byte(none), []byte("proxyProtocol: {from: ["+theBalancer+"/32]}"), 1)
	restart := func(config []byte) {
		t.Helper()
		a.kill(t, n)
		if err := os.WriteFile(path, config, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := a.Start(n); err != nil {
			t.Fatal(err)
		}
		if err := a.AwaitServing(context.WithoutCancel(t.Context()), time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	restart(after)
	t.Cleanup(func() { restart(before) })
}

// haproxy runs one until the test ends, and returns its port. The lines say where to it leads.
func haproxy(t *testing.T, lines ...string) (port int) {
	t.Helper()
	program := "/usr/sbin/haproxy"
	if found, err := exec.LookPath("haproxy"); err == nil {
		program = found
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	config := fmt.Sprintf("defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\nlisten pg\n  bind 127.0.0.1:%d\n  %s\n",
		port, strings.Join(lines, "\n  "))
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-db", "-f", file)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatalf("haproxy (Debian: apt-get install haproxy): %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has nothing to finish
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("haproxy: %s", out.Bytes())
		}
	})
	eventually(t, "haproxy listens", func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return port
}
