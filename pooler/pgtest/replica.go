package pgtest

import (
	"errors"
	"fmt"
	"os"
	"strconv"
)

// Replica starts a hot standby that streams from the server.
func (pg *Postgres) Replica() (*Postgres, error) {
	dir, err := os.MkdirTemp("", "armor-pg-")
	if err != nil {
		return nil, err
	}
	r := &Postgres{Dir: dir, bin: pg.bin, options: pg.options}
	if err := r.follow(pg); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return r, nil
}

func (pg *Postgres) follow(primary *Postgres) error {
	if err := pg.own(pg.Dir); err != nil {
		return err
	}
	backup := pg.command("pg_basebackup", "-D", pg.data(), "-R", "-c", "fast", "--no-sync", "-h", primary.Dir, "-p", strconv.Itoa(primary.Port), "-U", SuperUser)
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
