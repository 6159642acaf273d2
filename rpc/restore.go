package rpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/armor/wire"
	"github.com/armordb/armordb/rpc/armorpb"
)

const (
	// restoreTimeout is how long a restore may take: a million rows are some 80 MB.
	restoreTimeout = 10 * time.Minute
	// maxRestoredRevocations bounds those that come beside the file.
	maxRestoredRevocations = 4_000_000
	// revocationsInPart go into one message: each has its texts of at most some 1.5 KB.
	revocationsInPart = 400
)

// RestoreData is what a node needs beside a saved state to go on from it.
type RestoreData struct {
	Chain     [][]byte // the node's certificate and its issuers, DER, leaf first
	GossipKey []byte   // 32 bytes
	PeerCAs   [][]byte // DER; each must be one of the state's, and one of them has signed Chain
	MendTime  bool     // log time, which is in the future, is taken back
}

// Restore has the node go on from a saved state, alone, in a new era of that cluster; it
// returns once it leads. ErrConflict when the node belongs to a cluster, and ErrUncertain
// when the answer was lost: Identify then tells.
func (c *InitClient) Restore(ctx context.Context, d RestoreData, revoked []armor.Revocation, file io.Reader) error {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	err := c.line.use(ctx, func(conn grpc.ClientConnInterface) error {
		stream, err := armorpb.NewInitAPIClient(conn).Restore(ctx)
		if err != nil {
			return err
		}
		sent := sendRestore(stream.Send, d, revoked, file)
		if sent != nil && !errors.Is(sent, io.EOF) { // which says that the answer tells why
			return sent
		}
		_, err = stream.CloseAndRecv()
		return err
	})
	if mayHaveRun(err) {
		return fmt.Errorf("%w: restore the node: %v", armor.ErrUncertain, err)
	}
	return err
}

func sendRestore(send func(*armorpb.RestorePart) error, d RestoreData, revoked []armor.Revocation, file io.Reader) error {
	if err := send(&armorpb.RestorePart{Data: toMessage[armorpb.RestoreData](d)}); err != nil {
		return err
	}
	for part := range slices.Chunk(revoked, revocationsInPart) {
		if err := send(&armorpb.RestorePart{Revocations: toMessages[wire.Revocation](part)}); err != nil {
			return err
		}
	}
	buffered := bufio.NewReaderSize(file, maxChunk)
	for {
		b := make([]byte, maxChunk) // gRPC may keep what was sent
		n, err := io.ReadFull(buffered, b)
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return fmt.Errorf("read the saved state: %w", err)
		}
		if err := send(&armorpb.RestorePart{File: &armorpb.FileChunk{Data: b[:n], Last: last}}); err != nil || last {
			return err
		}
	}
}

// Restore makes the node the first of a new era.
func (s *initService) Restore(stream grpc.ClientStreamingServer[armorpb.RestorePart, armorpb.Empty]) error {
	in := &restoreReader{receive: stream.Recv}
	d, revoked, err := in.begin()
	if err != nil {
		return err
	}
	if err := s.node.Restore(stream.Context(), d, revoked, in); err != nil {
		return err
	}
	return stream.SendAndClose(&armorpb.Empty{})
}

// restoreReader reads the file out of the parts that come after the others.
type restoreReader struct {
	receive func() (*armorpb.RestorePart, error)
	held    []byte
	last    bool
}

// cutShort is what the end of the parts means before that of the file.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: the parts of a restore end before the saved state does", armor.ErrInvalid)
	}
	return err
}

// begin reads up to the file.
func (r *restoreReader) begin() (d RestoreData, revoked []armor.Revocation, err error) {
	part, err := r.receive()
	if err != nil {
		return d, nil, cutShort(err)
	}
	if part.Data == nil {
		return d, nil, fmt.Errorf("%w: a restore begins with what the node needs", armor.ErrInvalid)
	}
	if d, err = fromMessage[RestoreData](part.Data); err != nil {
		return d, nil, err
	}
	for {
		if part, err = r.receive(); err != nil {
			return d, nil, cutShort(err)
		}
		if part.File != nil {
			r.held, r.last = part.File.Data, part.File.Last
			return d, revoked, nil
		}
		more, err := fromMessages[armor.Revocation](part.Revocations)
		if err != nil {
			return d, nil, err
		}
		if revoked = append(revoked, more...); len(more) == 0 || len(revoked) > maxRestoredRevocations {
			return d, nil, fmt.Errorf("%w: a part of a restore that holds nothing, or more than %d revocations", armor.ErrInvalid, maxRestoredRevocations)
		}
	}
}

// Read reads the file.
func (r *restoreReader) Read(b []byte) (int, error) {
	for len(r.held) == 0 {
		if r.last {
			return 0, io.EOF
		}
		part, err := r.receive()
		if err != nil {
			return 0, cutShort(err)
		}
		if part.File == nil || len(part.File.Data) == 0 && !part.File.Last {
			return 0, fmt.Errorf("%w: the saved state is not sent to its end", armor.ErrInvalid)
		}
		r.held, r.last = part.File.Data, part.File.Last
	}
	n := copy(b, r.held)
	r.held = r.held[n:]
	return n, nil
}
