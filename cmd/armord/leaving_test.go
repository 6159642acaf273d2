package main

import (
	"context"
	"net"
	"net/http"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func dials(address string) bool {
	c, err := net.Dial("tcp", address)
	if err == nil {
		c.Close()
	}
	return err == nil
}

func TestDrainedNodeIsNotReadyBeforeItsDoorCloses(t *testing.T) {
	s := newSite(t)
	settled := s.config("n1")
	c := s.fileOf(settled, "drain: {delay: 10m}\n")
	log, stop := s.start(c)
	s.initialise(settled, log)
	s.soon("it is ready", log, func() bool { return readyz(settled) == http.StatusOK })
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	s.soon("it is not ready", log, func() bool { return readyz(settled) == http.StatusServiceUnavailable })
	if !dials(settled.Client.Listen) {
		t.Fatal("the client port is closed before load balancers can have noticed")
	}
	s.fileOf(settled, noDelay)
	s.sent(syscall.SIGHUP, log, "read again", 1) // also on its way out
	s.soon("the client port closes", log, func() bool { return !dials(settled.Client.Listen) })
	if err := <-stopped; err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
}

func TestDelayIsCountedFromTheFirstWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l leaving
		l.setDelay(10 * time.Second)
		began := time.Now()
		l.seen(t.Context()) // it is not on its way out: it is broken
		l.begin()
		time.Sleep(4 * time.Second)
		l.begin()
		shut := make(chan struct{})
		l.announce(func() { close(shut) })
		l.seen(t.Context())
		<-shut
		if took := time.Since(began); took != 10*time.Second || !l.begun() {
			t.Errorf("took %s", took)
		}
	})
}

func TestDelayIsCutShort(t *testing.T) {
	for name, cut := range map[string]func(*leaving, context.CancelFunc){
		"by SHUTDOWN":         func(l *leaving, _ context.CancelFunc) { l.hurry() },
		"by a file":           func(l *leaving, _ context.CancelFunc) { l.setDelay(time.Second) },
		"since the edge ends": func(_ *leaving, end context.CancelFunc) { end() },
	} {
		synctest.Test(t, func(t *testing.T) {
			var l leaving
			l.setDelay(time.Hour)
			l.begin()
			began := time.Now()
			ctx, end := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, func() { cut(&l, end) })
			l.seen(ctx)
			if took := time.Since(began); took != time.Second {
				t.Errorf("%s: took %s", name, took)
			}
		})
	}
}
