package tlsedge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/armordb/armordb/armor"
)

// v2 makes a header of version 2.
func v2(command, family byte, body ...byte) string {
	head := append([]byte(proxyV2), command, family)
	return string(append(binary.BigEndian.AppendUint16(head, uint16(len(body))), body...))
}

func v2From(client string) string {
	a := netip.MustParseAddrPort(client)
	source := a.Addr().AsSlice()
	family := map[int]byte{4: 0x11, 16: 0x21}[len(source)]
	body := append(append([]byte{}, source...), make([]byte, len(source))...)
	body = append(binary.BigEndian.AppendUint16(body, a.Port()), 0x19, 0x20)
	return v2(0x21, family, append(body, 4, 0, 2, 1, 2)...) // and a TLV that says nothing
}

func TestProxyHeaders(t *testing.T) {
	const none = "invalid AddrPort"
	long := "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0 65535 65535\r\n"
	for name, c := range map[string]struct{ header, client string }{
		"v1":                            {"PROXY TCP4 192.0.2.7 192.0.2.8 5000 6432\r\n", "192.0.2.7:5000"},
		"v1 of IPv6":                    {long, "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
		"v1 of a mapped address":        {"PROXY TCP6 ::ffff:192.0.2.7 ::1 5000 6432\r\n", "192.0.2.7:5000"},
		"v1 unknown":                    {"PROXY UNKNOWN\r\n", none},
		"v1 unknown and more":           {"PROXY UNKNOWN ff::1 ff::2 1 2\r\n", none},
		"v1 with a zone":                {"PROXY TCP6 fe80::1%eth0 ::1 5000 6432\r\n", ""},
		"v1 of the other family":        {"PROXY TCP4 ::1 ::1 5000 6432\r\n", ""},
		"v1 of both families":           {"PROXY TCP6 ::1 192.0.2.8 5000 6432\r\n", ""},
		"v1 without a port":             {"PROXY TCP4 192.0.2.7 192.0.2.8 5000\r\n", ""},
		"v1 with a word more":           {"PROXY TCP4 192.0.2.7 192.0.2.8 5000 6432 1\r\n", ""},
		"v1 with a large port":          {"PROXY TCP4 192.0.2.7 192.0.2.8 65536 6432\r\n", ""},
		"v1 with two spaces":            {"PROXY  TCP4 192.0.2.7 192.0.2.8 5000 6432\r\n", ""},
		"v1 of another protocol":        {"PROXY UDP4 192.0.2.7 192.0.2.8 5000 6432\r\n", ""},
		"v1 of a name":                  {"PROXY TCP4 localhost 192.0.2.8 5000 6432\r\n", ""},
		"v1 that does not end":          {"PROXY UNKNOWN " + strings.Repeat("x", 200), ""},
		"v1 that ends a byte too late":  {"PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n", ""},
		"v1 that ends just in time":     {"PROXY UNKNOWN " + strings.Repeat("x", 91) + "\r\n", none},
		"v2":                            {v2From("192.0.2.7:5000"), "192.0.2.7:5000"},
		"v2 of IPv6":                    {v2From("[2001:db8::7]:5000"), "[2001:db8::7]:5000"},
		"v2 of a mapped address":        {v2From("[::ffff:192.0.2.7]:5000"), "192.0.2.7:5000"},
		"v2 on its own behalf":          {v2(0x20, 0), none},
		"v2 on its own behalf, in full": {v2(0x20, 0x11, make([]byte, 12)...), none},
		"v2 of nobody in particular":    {v2(0x21, 0, 1, 2, 3), none},
		"v2 of a socket":                {v2(0x21, 0x31, make([]byte, 216)...), ""},
		"v2 of UDP":                     {v2(0x21, 0x12, make([]byte, 12)...), ""},
		"v2 of another command":         {v2(0x22, 0x11, make([]byte, 12)...), ""},
		"v2 of another version":         {v2(0x11, 0x11, make([]byte, 12)...), ""},
		"v2 too short for addresses":    {v2(0x21, 0x11, make([]byte, 11)...), ""},
		"v2 as long as it may be":       {v2(0x21, 0x11, make([]byte, proxyV2Most)...), "0.0.0.0:0"},
		"v2 longer than it may be":      {v2(0x21, 0x11, make([]byte, proxyV2Most+1)...), ""},
		"a startup packet":              {string(startup("orders", "app")), ""},
		"TLS":                           {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaa", ""},
		"almost v1":                     {"PROXYTCP4 192.0.2.7 192.0.2.8 5000 6432\r\n", ""},
		"almost v2":                     {strings.Replace(v2From("192.0.2.7:5000"), "QUIT", "quit", 1), ""},
	} {
		r := strings.NewReader(c.header + "what the client says")
		client, err := readProxyHeader(r)
		switch {
		case c.client == "":
			if !errors.Is(err, armor.ErrInvalid) || client.IsValid() {
				t.Errorf("%s: %s, %v", name, client, err)
			}
		case err != nil || client.String() != c.client:
			t.Errorf("%s: %s, %v", name, client, err)
		default:
			if rest, _ := io.ReadAll(r); string(rest) != "what the client says" {
				t.Errorf("%s: left %q", name, rest)
			}
		}
	}
	for _, whole := range []string{long, v2From("192.0.2.7:5000")} {
		for n := range len(whole) {
			if client, err := readProxyHeader(strings.NewReader(whole[:n])); err == nil || errors.Is(err, armor.ErrInvalid) || client.IsValid() {
				t.Errorf("%q: %s, %v", whole[:n], client, err)
			}
		}
	}
}

func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.7 192.0.2.8 5000 6432\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n\r\n"))
	f.Add([]byte(v2From("[2001:db8::7]:5000")))
	f.Add([]byte(v2(0x20, 0)))
	f.Fuzz(func(t *testing.T, sent []byte) {
		r := bytes.NewReader(sent)
		client, err := readProxyHeader(r)
		read := len(sent) - r.Len()
		if read > proxyV2Head+proxyV2Most || err != nil && client.IsValid() || client.Addr().Zone() != "" || client.Addr().Is4In6() {
			t.Fatalf("%d bytes read: %s, %v", read, client, err)
		}
		if again, err2 := readProxyHeader(bytes.NewReader(sent[:read])); err == nil && (again != client || err2 != nil) {
			t.Fatalf("%q: %s, and by itself %s, %v", sent[:read], client, again, err2)
		}
	})
}

// outcomes counts how handshakes end.
type outcomes struct {
	mu  sync.Mutex
	all map[Outcome]int
}

func (o *outcomes) count(which Outcome) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all[which]
}

func (o *outcomes) hook(which Outcome, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all[which]++
}

const balancerAddress = "127.0.0.2"

// behindBalancer is a rig whose clients come through a balancer at balancerAddress, or
// directly.
func behindBalancer(t testing.TB, change ...func(*Config)) (*rig, *outcomes) {
	t.Helper()
	o := &outcomes{all: map[Outcome]int{}}
	r := newRig(t, append(change, func(c *Config) {
		c.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix(balancerAddress + "/32")}
		c.Hooks.Handshake = o.hook
	})...)
	return r, o
}

// dialFrom connects from an address of this machine and says something first.
func (r *rig) dialFrom(t testing.TB, address, first string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	conn, err := d.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patient))
	if _, err := conn.Write([]byte(first)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// enter logs in over a connection and returns the answer.
func (r *rig) enter(t testing.TB, conn net.Conn) string {
	t.Helper()
	cert := r.ca.Leaf(t, appID)
	c, err := upgrade(conn, r.clientConfig(&cert))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(startup("orders", "checkout_rw")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestClientBehindABalancerIsJudgedByItsOwnAddress(t *testing.T) {
	r, _ := behindBalancer(t)
	for header, want := range map[string]string{
		"PROXY TCP4 127.1.2.3 192.0.2.8 5000 6432\r\n": "127.1.2.3:5000",
		v2From("127.3.2.1:4000"):                       "127.3.2.1:4000",
		v2(0x20, 0):                                    balancerAddress, // it speaks for itself
	} {
		conn := r.dialFrom(t, balancerAddress, header)
		if answer := r.enter(t, conn); answer != "ok" {
			t.Fatalf("%q: %q", header, answer)
		}
		if all := r.edge.Sessions(); len(all) != 1 || !strings.HasPrefix(all[0].Source.String(), want) {
			t.Errorf("%q: %+v", header, all)
		}
		conn.Close()
		eventually(t, "the session ends", func() bool { return r.edge.Count() == 0 })
	}
	for _, header := range []string{"PROXY TCP4 198.51.100.7 192.0.2.8 5000 6432\r\n", v2From("198.51.100.7:1")} {
		answer := r.enter(t, r.dialFrom(t, balancerAddress, header))
		if f := parseFatal([]byte(answer)); !strings.Contains(f['M'], "may not connect from 198.51.100.7") {
			t.Errorf("%q: %q", header, answer)
		}
	}
}

// TestHeadersAreForBalancersAlone, and balancers must send one: GUARANTEES trap 28.
func TestHeadersAreForBalancersAlone(t *testing.T) {
	r, o := behindBalancer(t)
	closed := func(what string, conn net.Conn) {
		t.Helper()
		if answer, _ := io.ReadAll(conn); len(answer) > 0 {
			t.Errorf("%s: answered %q", what, answer)
		}
	}
	closed("a header of somebody else", r.dialFrom(t, "127.0.0.3", "PROXY TCP4 127.0.0.1 192.0.2.8 5000 6432\r\n"+string(eight(codeTLS))))
	closed("a header of somebody else, in version 2", r.dialFrom(t, "127.0.0.3", v2From("127.0.0.1:1")+string(eight(codeTLS))))
	if o.count(OutcomeGarbage) != 2 {
		t.Errorf("outcomes %v", o.all)
	}
	closed("a balancer without a header", r.dialFrom(t, balancerAddress, string(eight(codeTLS))))
	closed("a balancer with another's", r.dialFrom(t, balancerAddress, "PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n"))
	if o.count(OutcomeProxy) != 2 {
		t.Errorf("outcomes %v", o.all)
	}
	closed("a second header", r.dialFrom(t, balancerAddress, v2From("127.0.0.1:1")+v2From("127.0.0.1:1")))
	r.dialFrom(t, balancerAddress, "").Close()
	eventually(t, "a connection that says nothing is a probe", func() bool { return o.count(OutcomeProbe) == 1 })
	if answer := r.enter(t, r.dialFrom(t, "127.0.0.3", "")); answer != "ok" {
		t.Errorf("who comes directly: %q", answer)
	}
}

func TestBalancerThatStallsIsSentAway(t *testing.T) {
	r, o := behindBalancer(t, func(c *Config) { c.HandshakeTimeout = 50 * time.Millisecond })
	for _, part := range []string{"", "PROXY TCP4 127.", proxyV2} {
		if answer, _ := io.ReadAll(r.dialFrom(t, balancerAddress, part)); len(answer) > 0 {
			t.Errorf("%q is answered %q", part, answer)
		}
	}
	if o.count(OutcomeTimeout) != 3 {
		t.Errorf("outcomes %v", o.all)
	}
}

// TestEachClientBehindABalancerHasItsOwnBounds.
func TestEachClientBehindABalancerHasItsOwnBounds(t *testing.T) {
	r, o := behindBalancer(t, func(c *Config) { c.MaxHandshakesPerSource = 2; c.CancelsPerSecond = 1 })
	speaking := func(client string) net.Conn { return r.dialFrom(t, balancerAddress, v2From(client)+"\x00") }
	for n := range 6 { // of as many clients
		speaking(fmt.Sprintf("127.0.1.%d:1", n))
	}
	first := speaking("127.0.2.1:1")
	speaking("127.0.2.1:2")
	eventually(t, "all have spoken", func() bool { return r.edge.Unproven().Open == 8 })
	if o.count(OutcomeEvicted) != 0 {
		t.Errorf("outcomes %v", o.all)
	}
	speaking("127.0.2.1:3")
	if _, err := first.Read(make([]byte, 1)); err == nil {
		t.Error("of three of one client all are kept")
	}
	eventually(t, "it is told", func() bool { return o.count(OutcomeEvicted) == 1 })
	cancel := func(client string) {
		_, _ = io.ReadAll(r.dialFrom(t, balancerAddress, v2From(client)+string(cancelRequest(1, 2))))
	}
	for range 4 {
		cancel("127.0.3.1:1")
	}
	if r.cancel.count() != 2 {
		t.Errorf("%d cancel requests of one client", r.cancel.count())
	}
	if cancel("127.0.3.2:1"); r.cancel.count() != 3 {
		t.Error("another client pays for them")
	}
}

// TestHAProxySaysWhomItSpeaksFor, and its health checks are no clients.
func TestHAProxySaysWhomItSpeaksFor(t *testing.T) {
	for _, version := range []string{
		"send-proxy", "send-proxy-v2",
		"send-proxy-v2 check-send-proxy check inter 50ms", "send-proxy check-send-proxy check inter 50ms",
	} {
		t.Run(version, func(t *testing.T) {
			r, o := behindBalancer(t)
			front := haproxy(t, r.addr, version)
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.9")}}
			conn, err := d.Dial("tcp", front)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patient))
			if answer := r.enter(t, conn); answer != "ok" {
				t.Fatalf("%q", answer)
			}
			if all := r.edge.Sessions(); len(all) != 1 || all[0].Source.String() != conn.LocalAddr().String() {
				t.Errorf("from %s: %+v", conn.LocalAddr(), all)
			}
			if strings.Contains(version, "check") {
				eventually(t, "it looks whether the node is there", func() bool { return o.count(OutcomeProbe) > 2 })
			}
			if o.count(OutcomeProxy)+o.count(OutcomeGarbage) > 0 {
				t.Errorf("outcomes %v", o.all)
			}
		})
	}
}

// haproxy runs one in front of a server until the test ends, and returns its address.
func haproxy(t *testing.T, server, options string) (front string) {
	t.Helper()
	program := "/usr/sbin/haproxy"
	if found, err := exec.LookPath("haproxy"); err == nil {
		program = found
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front = l.Addr().String()
	l.Close()
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	config := "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n" +
		fmt.Sprintf("listen pg\n  bind %s\n  source %s\n  server n1 %s %s\n", front, balancerAddress, server, options)
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
		conn, err := net.Dial("tcp", front)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return front
}
