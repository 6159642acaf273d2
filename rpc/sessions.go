package rpc

import (
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/rpc/armorpb"
)

// sessionStream is a list of sessions as it arrives.
type sessionStream = grpc.ServerStreamingClient[armorpb.SessionChunk]

// sendSessions cuts a survey into chunks.
func sendSessions(all SessionSurvey, send func(*armorpb.SessionChunk) error) error {
	chunk, size := &armorpb.SessionChunk{}, 0
	for _, s := range all.Sessions {
		m := toMessage[armorpb.SessionInfo](s)
		bytes := proto.Size(m)
		if size > 0 && size+bytes > maxChunk {
			if err := send(chunk); err != nil {
				return err
			}
			chunk, size = &armorpb.SessionChunk{}, 0
		}
		chunk.Sessions = append(chunk.Sessions, m)
		size += bytes
	}
	chunk.Silent = toMessages[armorpb.SilentNode](all.Silent)
	return send(chunk)
}

// receiveSessions reads a survey to the end of its stream; gRPC tells a stream that
// was cut from one that has ended.
func receiveSessions(stream sessionStream) (SessionSurvey, error) {
	var all SessionSurvey
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		sessions, err := fromMessages[armor.SessionInfo](chunk.Sessions)
		if err != nil {
			return all, err
		}
		silent, err := fromMessages[SilentNode](chunk.Silent)
		if err != nil {
			return all, err
		}
		all.Sessions, all.Silent = append(all.Sessions, sessions...), append(all.Silent, silent...)
	}
}
