package memnet_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armordb/armordb/cluster/memnet"
)

func pair(t *testing.T, n *memnet.Network) (near, far net.Conn) {
	t.Helper()
	listener := n.Host("b").Route("p")
	near, err := n.Host("a").Dial(t.Context(), "b", "p")
	if err != nil {
		t.Fatal(err)
	}
	if far, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	return near, far
}

func TestCutLinkIsABlackHoleUntilItHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		near, far := pair(t, n)
		n.Cut("a", "b")
		if _, err := near.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
		far.SetReadDeadline(time.Now().Add(time.Second))
		b := make([]byte, 4)
		if _, err := far.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read over a cut link: %v", err)
		}
		far.SetReadDeadline(time.Time{})
		n.Heal()
		if _, err := io.ReadFull(far, b); err != nil || string(b) != "late" {
			t.Fatalf("after healing: %q, %v", b, err)
		}
	})
}

func TestDelayHoldsBytesBackAndKeepsTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		near, far := pair(t, n)
		n.Delay("a", "b", time.Minute)
		near.Write([]byte("1"))
		n.Delay("a", "b", 0)
		near.Write([]byte("2"))
		began := time.Now()
		b := make([]byte, 2)
		if _, err := io.ReadFull(far, b); err != nil || string(b) != "12" {
			t.Fatalf("read %q, %v", b, err)
		}
		if took := time.Since(began); took != time.Minute {
			t.Fatalf("took %s", took)
		}
	})
}

func TestDialOverACutLinkWaitsForItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		n.Host("b").Route("p")
		n.Host("a")
		n.Cut("b", "a")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.Host("a").Dial(ctx, "b", "p"); err == nil {
			t.Fatal("dialed over a link that answers nothing")
		}
	})
}

func TestCrashBreaksConnectionsAndRefusesNewOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		near, _ := pair(t, n)
		n.Crash("b")
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatalf("read from a crashed host: %v", err)
		}
		if _, err := n.Host("a").Dial(t.Context(), "b", "p"); err == nil {
			t.Fatal("dialed a crashed host")
		}
	})
}

func TestDropLosesWhatWasOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		near, far := pair(t, n)
		n.Cut("a", "b")
		if _, err := near.Write([]byte("lost")); err != nil {
			t.Fatal(err)
		}
		n.Drop("a", "b")
		n.Heal()
		if got, err := io.ReadAll(far); err != nil || len(got) != 0 {
			t.Fatalf("read %q, %v", got, err)
		}
	})
}
