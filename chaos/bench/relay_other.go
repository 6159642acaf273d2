//go:build !linux

package bench

import (
	"context"
	"errors"
)

// Relay needs epoll.
func Relay(context.Context, string, func(port int)) error { return errors.ErrUnsupported }
