package rpc

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"google.golang.org/grpc/codes"

	"github.com/armordb/armordb/armor"
)

func TestCallsAreLoggedInOurWords(t *testing.T) {
	var out strings.Builder
	log := callLog(slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	log.Log(t.Context(), logging.LevelInfo, "finished call", logging.MethodFieldKey, "Submit",
		"grpc.error", "denied", "peer.address", "1.2.3.4:5", armor.KeyTook, time.Second)
	var line map[string]any
	if err := json.Unmarshal([]byte(out.String()), &line); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"time", "level", "msg", armor.KeyPeer, armor.KeyMethod, armor.KeyErr, armor.KeyTook} {
		if _, ok := line[key]; !ok {
			t.Errorf("no %s in %s", key, out.String())
		}
		delete(line, key)
	}
	if len(line) > 0 {
		t.Errorf("also %v", line)
	}
}

// Two renewals a second from each node must not fill the log.
func TestCallsThatWentWellAreForDebugging(t *testing.T) {
	for code, want := range map[codes.Code]slog.Level{codes.OK: slog.LevelDebug,
		codes.PermissionDenied: slog.LevelInfo, codes.Unknown: slog.LevelError} {
		if got := slog.Level(levelOf(code)); got != want {
			t.Errorf("%s is logged at %s", code, got)
		}
	}
}
