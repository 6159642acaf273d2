package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"

	"github.com/armordb/armordb/armor"
)

// authorizer says whether a call may be made; nil error: yes.
type authorizer func(ctx context.Context, method string) error

const (
	prefaceTime = 5 * time.Second // from a proven connection to its first words of HTTP/2
	maxStreams  = 256             // calls at once on one connection
	maxHeaders  = 16 << 10        // of one call, in bytes
)

// newGRPC makes a server whose calls are logged, recovered from panics, authorized and
// have their errors translated, in this order.
func newGRPC(logger *slog.Logger, authorize authorizer, more ...grpc.ServerOption) *grpc.Server {
	log := []logging.Option{
		logging.WithLogOnEvents(logging.FinishCall),
		logging.WithLevels(levelOf),
		logging.WithDurationField(func(d time.Duration) logging.Fields { return logging.Fields{armor.KeyTook, d} }),
	}
	rescue := recovery.WithRecoveryHandlerContext(func(_ context.Context, p any) error {
		logger.Error("a call panicked", armor.KeyCause, fmt.Sprint(p), "stack", string(debug.Stack()))
		return toStatus(errPanicked)
	})
	return grpc.NewServer(append([]grpc.ServerOption{
		grpc.ChainUnaryInterceptor(
			logging.UnaryServerInterceptor(callLog(logger), log...),
			recovery.UnaryServerInterceptor(rescue),
			func(ctx context.Context, q any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
				if err := authorize(ctx, info.FullMethod); err != nil {
					return nil, toStatus(err)
				}
				reply, err := handle(ctx, q)
				return reply, toStatus(err)
			},
		),
		grpc.ChainStreamInterceptor(
			logging.StreamServerInterceptor(callLog(logger), log...),
			recovery.StreamServerInterceptor(rescue),
			func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
				if err := authorize(stream.Context(), info.FullMethod); err != nil {
					return toStatus(err)
				}
				return toStatus(handle(server, stream))
			},
		),
		grpc.ConnectionTimeout(prefaceTime),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingAfter / 2, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * pingAfter, Timeout: pingTimeout}),
		grpc.WaitForHandlers(true),
	}, more...)...)
}

// errPanicked has no kind: whether the call did something is not known.
var errPanicked = errors.New("internal error of the node; its log says more")

// levelOf keeps calls that went well, two a second from each node, out of the log.
func levelOf(code codes.Code) logging.Level {
	switch code {
	case codes.OK, codes.Canceled:
		return logging.LevelDebug
	case codes.Unknown, codes.Internal:
		return logging.LevelError
	default:
		return logging.LevelInfo
	}
}

// logKeys are our words for the fields that the logging middleware hands over; the
// others are dropped.
var logKeys = map[string]string{
	logging.MethodFieldKey: armor.KeyMethod,
	"grpc.error":           armor.KeyErr,
	armor.KeyTook:          armor.KeyTook,
}

func callLog(logger *slog.Logger) logging.Logger {
	return logging.LoggerFunc(func(ctx context.Context, level logging.Level, _ string, fields ...any) {
		if !logger.Enabled(ctx, slog.Level(level)) {
			return
		}
		attrs := []any{armor.KeyPeer, nameOf(ctx)}
		for i := 0; i+1 < len(fields); i += 2 {
			if key, ok := logKeys[fmt.Sprint(fields[i])]; ok {
				attrs = append(attrs, key, fields[i+1])
			}
		}
		logger.Log(ctx, slog.Level(level), "call", attrs...)
	})
}

// nameOf says who called, for the log.
func nameOf(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	if who, ok := p.AuthInfo.(caller); ok && who.kind != "" {
		return who.kind + "/" + who.name
	}
	return p.Addr.String()
}

// serve runs a gRPC server until ctx or the listener ends. Calls in progress get
// drainTime to finish.
func serve(ctx context.Context, server *grpc.Server, serveErr func() error) error {
	done := make(chan error, 1)
	go func() { done <- serveErr() }()
	var err error
	select {
	case err = <-done:
		server.Stop()
	case <-ctx.Done():
		stop := time.AfterFunc(drainTime, server.Stop)
		server.GracefulStop()
		stop.Stop()
		<-done
	}
	return err
}

// drainTime is how long calls in progress may take to finish when the server ends.
const drainTime = 2 * time.Second
