package main

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armord/config"
)

// writeConfig writes a configuration whose ops port is at address.
func writeConfig(t *testing.T, address string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "armord.yaml")
	text := "node: n1\ncluster: acme\ndataDir: data\nops: {listen: \"" + address + "\"}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func address(url string) string { return strings.TrimPrefix(url, "http://") }

func TestHealthIsTheAnswerOfTheOpsPort(t *testing.T) {
	stale := error(armor.ErrStale)
	url := startOps(t, func() []probe { return []probe{{name: "trust state", check: func() error { return stale }}} }, false)
	path := writeConfig(t, address(url))
	if text, err := askHealth(t.Context(), path, false); err != nil || text != "ok" {
		t.Errorf("a node that lives and is not ready: %q, %v", text, err)
	}
	_, err := askHealth(t.Context(), path, true)
	if !errors.Is(err, armor.ErrUnavailable) || !strings.Contains(err.Error(), "[-] trust state: "+stale.Error()) {
		t.Errorf("a node that is not ready: %v", err)
	}
	stale = nil
	if text, err := askHealth(t.Context(), path, true); err != nil || text != "[+] trust state\nready" {
		t.Errorf("a node that is ready: %q, %v", text, err)
	}
}

func TestHealthOfAnAddressThatMeansEveryOneAsksThisMachine(t *testing.T) {
	_, port, _ := strings.Cut(address(startOps(t, nil, false)), ":")
	for _, host := range []string{"", "0.0.0.0", "[::]"} {
		if _, err := askHealth(t.Context(), writeConfig(t, host+":"+port), false); err != nil {
			t.Errorf("%q: %v", host, err)
		}
	}
}

func TestHealthFindsThePortThatWasChosen(t *testing.T) {
	path := writeConfig(t, "127.0.0.1:0")
	if _, err := askHealth(t.Context(), path, false); !errors.Is(err, armor.ErrUnavailable) {
		t.Fatalf("of a node that never ran: %v", err)
	}
	data := filepath.Join(filepath.Dir(path), "data")
	if _, err := os.Stat(data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("asking has made %s", data)
	}
	_, port, _ := strings.Cut(address(startOps(t, nil, false)), ":")
	if err := errors.Join(os.Mkdir(data, 0o700), os.WriteFile(filepath.Join(data, "ports.yaml"), []byte("ops: "+port+"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := askHealth(t.Context(), path, false); err != nil {
		t.Error(err)
	}
}

func TestNobodyElseAnswersForANode(t *testing.T) {
	healthy := startOps(t, nil, false)
	t.Setenv("HTTP_PROXY", healthy)
	t.Setenv("http_proxy", healthy)
	for name, answer := range map[string]http.HandlerFunc{
		"a redirection": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, healthy+"/livez", http.StatusFound) },
		"another code":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"a cut answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "ok")
		},
		"an answer for terminals": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, "\x1b[31m"+strings.Repeat("x", 1<<20))
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(answer)
			defer server.Close()
			_, err := askHealth(t.Context(), writeConfig(t, address(server.URL)), false)
			if !errors.Is(err, armor.ErrUnavailable) {
				t.Fatalf("askHealth = %v", err)
			}
			if s := err.Error(); strings.Contains(s, "\x1b") || len(s) > 2*maxHealth {
				t.Errorf("%d bytes of it are printed: %.80q", len(s), s)
			}
		})
	}
}

func TestHealthWithoutAConfigurationIsNoUsageError(t *testing.T) {
	_, err := askHealth(t.Context(), filepath.Join(t.TempDir(), "none.yaml"), false)
	if mistake := (*config.Mistake)(nil); err == nil || errors.As(err, &mistake) || exitCode(err) != 1 {
		t.Errorf("askHealth = %v, exit code %d", err, exitCode(err))
	}
}
