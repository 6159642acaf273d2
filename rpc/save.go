package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/grpc"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/armorpb"
)

// saveTimeout is how long a node may take to send its state: a million rows are some 80 MB.
const saveTimeout = 10 * time.Minute

// Save fetches the state of one node, with all in it that was committed before, as a file
// that the node has signed. begin is called before each attempt and says where to write it;
// what an attempt before has written is worth nothing. Nothing is checked here.
func (c *Client) Save(ctx context.Context, begin func() (io.Writer, error)) error {
	t := trying{within: saveTimeout, hopeless: c.noQuorum}
	return c.anyNode(ctx, t, func(ctx context.Context, api armorpb.OperatorAPIClient) error {
		w, err := begin()
		if err != nil {
			return err
		}
		stream, err := api.Save(ctx, &armorpb.Empty{})
		if err != nil {
			return err
		}
		return cut(receiveFile(stream.Recv, w))
	})
}

func receiveFile(receive func() (*armorpb.FileChunk, error), w io.Writer) error {
	for {
		chunk, err := receive()
		if err != nil {
			return err
		}
		if _, err := w.Write(chunk.Data); err != nil {
			return fmt.Errorf("write what was received: %w", err)
		}
		if chunk.Last {
			return nil
		}
	}
}

// Save sends this node's state, to one operator at a time.
func (o *operatorService) Save(_ *armorpb.Empty, stream grpc.ServerStreamingServer[armorpb.FileChunk]) error {
	who, err := callerFrom(stream.Context())
	if err != nil {
		return err
	}
	if !o.server.saving.CompareAndSwap(false, true) {
		return fmt.Errorf("%w: node %s is sending its state to somebody already", armor.ErrUnavailable, o.server.cfg.Node.ID())
	}
	defer o.server.saving.Store(false)
	ctx, cancel := context.WithTimeout(stream.Context(), saveTimeout)
	defer cancel()
	chunks := &chunkWriter{ctx: ctx, send: stream.Send}
	if err := o.server.cfg.Node.Save(ctx, who.name, chunks); err != nil {
		return err
	}
	return chunks.end()
}

// chunkWriter sends what is written to it in messages of a bounded size.
type chunkWriter struct {
	ctx  context.Context
	send func(*armorpb.FileChunk) error
	held []byte
}

// Write sends full chunks and keeps the rest.
func (w *chunkWriter) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	written := len(b)
	for len(w.held)+len(b) > maxChunk {
		n := maxChunk - len(w.held)
		if err := w.send(&armorpb.FileChunk{Data: append(w.held, b[:n]...)}); err != nil {
			return 0, err
		}
		w.held, b = nil, b[n:] // gRPC may keep what was sent
	}
	w.held = append(w.held, b...)
	return written, nil
}

func (w *chunkWriter) end() error {
	return w.send(&armorpb.FileChunk{Data: w.held, Last: true})
}

// Attest asks the node at a peer address what it knows of a revision. It returns which node
// is there: each speaks for itself, and no other node passes it on.
func (c *Client) Attest(ctx context.Context, address string, revision uint64) (node armor.NodeID, a armor.Attestation, err error) {
	l := newLine(address, farConnect, handshaken{}, func(ctx context.Context) (net.Conn, error) {
		conn, err := c.dial(ctx, address)
		if err != nil {
			return nil, err
		}
		if node, err = c.nodeAt(conn); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return conn, nil
	})
	defer l.close()
	err = attempt(ctx, l, c.cfg.Timeout, func(ctx context.Context, api armorpb.OperatorAPIClient) error {
		reply, err := api.Attest(ctx, &armorpb.AttestRequest{Revision: revision})
		if err == nil {
			a, err = fromMessage[armor.Attestation](reply)
		}
		return err
	})
	return node, a, err
}

// Attest says what this node knows of a revision.
func (o *operatorService) Attest(_ context.Context, q *armorpb.AttestRequest) (*armorpb.Attestation, error) {
	a, err := o.server.cfg.Node.Attest(q.Revision)
	if err != nil {
		return nil, err
	}
	return toMessage[armorpb.Attestation](a), nil
}
