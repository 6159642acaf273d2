package pgtest

import (
	"errors"
	"fmt"
	"os"
)

// Replica starts a hot standby that streams from the server.
func (pg *Postgres) Replica() (*Postgres, error) {
	return pg.ReplicaThrough(fmt.Sprintf("host=%s port=%d user=%s", pg.Dir, pg.Port, SuperUser))
}

// ReplicaThrough does the same by a connection string that leads to the server.
func (pg *Postgres) ReplicaThrough(conninfo string) (*Postgres, error) {
	dir, err := os.MkdirTemp("", "armor-pg-")
	if err != nil {
		return nil, err
	}
	r := &Postgres{Dir: dir, bin: pg.bin, options: pg.options}
	if err := r.follow(conninfo); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return r, nil
}

func (pg *Postgres) follow(conninfo string) error {
	if err := pg.own(pg.Dir); err != nil {
		return err
	}
	backup := pg.command("pg_basebackup", "-D", pg.data(), "-R", "-c", "fast", "--no-sync", "-d", conninfo)
	if out, err := backup.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_basebackup: %w: %s", err, out)
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	pg.Port = port
	return pg.Restart()
}

// Promote makes a standby the primary, and returns when it is.
func (pg *Postgres) Promote() error {
	if out, err := pg.command("pg_ctl", "promote", "-w", "-D", pg.data()).CombinedOutput(); err != nil {
		return fmt.Errorf("pg_ctl promote: %w: %s", err, out)
	}
	return nil
}
