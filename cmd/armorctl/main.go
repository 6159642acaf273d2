package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// version is set by the linker: -X main.version=1.2.3.
var version = "devel"

func main() {
	// The first signal ends what is being done in an orderly way and says what has
	// been committed; once it was taken the default action is back.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	a := &app{in: os.Stdin, out: os.Stdout, errOut: os.Stderr, env: os.Getenv, now: time.Now}
	os.Exit(a.run(ctx, os.Args[1:]))
}
