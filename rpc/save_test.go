package rpc

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/armorpb"
)

func (n *labNode) onSave(f func(ctx context.Context, by string, w io.Writer) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.save = f
}

// into is where a state is written, and how often that was begun.
type into struct {
	bytes.Buffer
	begun int
}

func (i *into) begin() (io.Writer, error) {
	i.begun++
	i.Reset()
	return i, nil
}

func TestAStateComesInChunksAndWhole(t *testing.T) {
	l := newLab(t, 1)
	want := make([]byte, 3*maxChunk+7)
	rand.Read(want)
	l.nodes["n1"].onSave(func(_ context.Context, by string, w io.Writer) error {
		if by != "vera" {
			t.Errorf("asked by %q", by)
		}
		for rest := want; len(rest) > 0; {
			n := min(len(rest), 2*maxChunk-3)
			if _, err := w.Write(rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	})
	var got into
	if err := l.client(l.enrol("vera", armor.Viewer), "n1").Save(t.Context(), got.begin); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%d bytes arrived of %d", got.Len(), len(want))
	}
}

func TestASaveThatFailsHalfwayBeginsAnewElsewhere(t *testing.T) {
	l := newLab(t, 2)
	l.nodes["n1"].onSave(func(_ context.Context, _ string, w io.Writer) error {
		_, _ = w.Write(make([]byte, 2*maxChunk))
		return fmt.Errorf("%w: its disk is gone", armor.ErrUnavailable)
	})
	l.nodes["n2"].onSave(func(_ context.Context, _ string, w io.Writer) error {
		_, err := io.WriteString(w, "the state")
		return err
	})
	var got into
	if err := l.client(l.enrol("vera", armor.Viewer), "n1", "n2").Save(t.Context(), got.begin); err != nil {
		t.Fatal(err)
	}
	if got.String() != "the state" || got.begun != 2 {
		t.Errorf("%q after %d attempts", got.String(), got.begun)
	}
}

func TestAStreamWithoutAnEndIsNoState(t *testing.T) {
	chunks := []*armorpb.FileChunk{{Data: []byte("half")}}
	receive := func() (*armorpb.FileChunk, error) {
		if len(chunks) == 0 {
			return nil, io.EOF
		}
		c := chunks[0]
		chunks = chunks[1:]
		return c, nil
	}
	if err := cut(receiveFile(receive, io.Discard)); !errors.Is(err, armor.ErrUnavailable) {
		t.Errorf("a stream that was cut gives %v", err)
	}
}

func TestAFullDiskEndsASaveAtOnce(t *testing.T) {
	l := newLab(t, 2)
	full := errors.New("no space left on device")
	var calls atomic.Int32
	for _, n := range l.nodes {
		n.onSave(func(_ context.Context, _ string, w io.Writer) error {
			calls.Add(1)
			_, err := w.Write(make([]byte, 10))
			return err
		})
	}
	err := l.client(l.enrol("vera", armor.Viewer), "n1", "n2").Save(t.Context(), func() (io.Writer, error) { return failing{full}, nil })
	if !errors.Is(err, full) || calls.Load() != 1 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestANodeSendsItsStateToOneAtATime(t *testing.T) {
	l := newLab(t, 1)
	begun, goOn := make(chan struct{}), make(chan struct{})
	l.nodes["n1"].onSave(func(context.Context, string, io.Writer) error {
		begun <- struct{}{}
		<-goOn
		return nil
	})
	first := make(chan error, 1)
	var one, two into
	vera := l.enrol("vera", armor.Viewer)
	go func() { first <- l.client(vera, "n1").Save(t.Context(), one.begin) }()
	<-begun
	if err := l.client(vera, "n1").Save(t.Context(), two.begin); !errors.Is(err, armor.ErrUnavailable) {
		t.Errorf("the second got %v", err)
	}
	close(goOn)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestOnlyOperatorsWithARoleMaySave(t *testing.T) {
	l := newLab(t, 1)
	l.nodes["n1"].onSave(func(context.Context, string, io.Writer) error { t.Error("it was sent"); return nil })
	var got into
	if err := l.client(l.enrol("nobody"), "n1").Save(t.Context(), got.begin); !errors.Is(err, armor.ErrDenied) {
		t.Errorf("an operator without a role got %v", err)
	}
}

// An address is no proof of who is there: the certificate is.
func TestANodeAttestsForItself(t *testing.T) {
	l := newLab(t, 2)
	c := l.client(l.enrol("vera", armor.Viewer), "n1")
	node, a, err := c.Attest(t.Context(), l.nodes["n2"].address, 10)
	if err != nil || node != "n2" || a.Mark.Revision != 10 {
		t.Errorf("%s attests %+v, %v", node, a, err)
	}
	l.nodes["n2"].kill()
	if _, _, err := c.Attest(t.Context(), l.nodes["n2"].address, 10); !errors.Is(err, armor.ErrUnavailable) {
		t.Errorf("a dead node attests: %v", err)
	}
}
