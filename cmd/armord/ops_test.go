package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armord/config"
)

func noProbes() []probe { return nil }

func startOps(t *testing.T, probes func() []probe, withPprof bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "metrics here") })
	o := newOps(l, probes, metrics, withPprof, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return "http://" + l.Addr().String()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestReadinessNamesWhatIsMissing(t *testing.T) {
	status := armor.NodeStatus{}
	var stale, certificate error
	url := startOps(t, func() []probe {
		return readiness(func() armor.NodeStatus { return status }, func() error { return stale }, func() error { return certificate }, config.NoPool)
	}, false)
	if code, body := get(t, url+"/readyz"); code != 200 || body != "ready\n" {
		t.Fatalf("ready node says %d %q", code, body)
	}
	stale = armor.ErrStale
	certificate = errors.New("expired")
	status.Draining = true
	code, body := get(t, url+"/readyz?verbose")
	if code != 503 {
		t.Errorf("code %d", code)
	}
	for _, want := range []string{"[-] trust state: " + armor.ErrStale.Error(), "[-] server certificate: expired",
		"[-] not draining: draining", "not ready"} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is not in\n%s", want, body)
		}
	}
	if code, _ := get(t, url+"/livez"); code != 200 {
		t.Errorf("livez = %d while not ready", code)
	}
}

// TestPoolsThatNobodyCanBeServedOfAreNamed always, and count where the configuration says so.
func TestPoolsThatNobodyCanBeServedOfAreNamed(t *testing.T) {
	good, bad := armor.PoolStatus{Pool: "dev/a"}, armor.PoolStatus{Pool: "dev/b", NotReady: "this node holds no share of the pool"}
	for _, c := range []struct {
		setting string
		pools   []armor.PoolStatus
		code    int
	}{
		{config.NoPool, []armor.PoolStatus{good, bad}, 200}, {config.NoPool, []armor.PoolStatus{bad}, 200},
		{config.AnyPool, []armor.PoolStatus{good, bad}, 200}, {config.AnyPool, []armor.PoolStatus{bad}, 503}, {config.AnyPool, nil, 200},
		{config.AllPools, []armor.PoolStatus{good, bad}, 503}, {config.AllPools, []armor.PoolStatus{good}, 200},
	} {
		fine := func() error { return nil }
		url := startOps(t, func() []probe {
			return readiness(func() armor.NodeStatus { return armor.NodeStatus{Pools: c.pools} }, fine, fine, c.setting)
		}, false)
		code, body := get(t, url+"/readyz?verbose")
		if code != c.code {
			t.Errorf("%s of %v: %d", c.setting, c.pools, code)
		}
		for _, p := range c.pools {
			if line := map[bool]string{true: "[+] pool " + p.Pool + "\n", false: "[-] pool " + p.Pool + ": " + p.NotReady}[p.NotReady == ""]; !strings.Contains(body, line) {
				t.Errorf("%q is not in\n%s", line, body)
			}
		}
	}
}

func TestPprofIsServedOnlyWhenAsked(t *testing.T) {
	for with, want := range map[bool]int{true: 200, false: 404} {
		if code, _ := get(t, startOps(t, noProbes, with)+"/debug/pprof/"); code != want {
			t.Errorf("pprof: %v gives %d, want %d", with, code, want)
		}
	}
}

// TestHealthIsAnsweredUnderAFlood of connections that say nothing, or a part of a request.
func TestHealthIsAnsweredUnderAFlood(t *testing.T) {
	url := startOps(t, noProbes, false)
	address := strings.TrimPrefix(url, "http://")
	for n := range 4 * opsConns {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(n%4+1))}}
		conn, err := d.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if n%2 == 0 {
			io.WriteString(conn, "GET /livez HTTP/1.1\r\n")
		}
	}
	if code, _ := get(t, url+"/livez"); code != 200 {
		t.Errorf("code %d", code)
	}
}
