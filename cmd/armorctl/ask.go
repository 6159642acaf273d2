package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/armordb/armordb/cmd/armorctl/fault"
)

// confirm asks the user to type a word before something that cannot be taken back.
// With --yes it does not ask; with nobody to ask it refuses.
func (a *app) confirm(ctx context.Context, word string) error {
	if a.globals.yes {
		return nil
	}
	if !a.interactive() {
		return fault.Hinted(&fault.Usage{Err: errors.New("this needs a confirmation, and there is nobody to ask")},
			"run it with --yes once the list above is what you mean")
	}
	fmt.Fprintf(a.errOut, "type %q to go on: ", word)
	line, err := a.readLine(ctx)
	if err != nil {
		return err
	}
	if strings.TrimSpace(line) != word {
		return &fault.Usage{Err: errors.New("not confirmed: nothing was changed")}
	}
	return nil
}

// readLine reads a line from the terminal.
func (a *app) readLine(ctx context.Context) (string, error) {
	return unlessEnded(ctx, func() (string, error) { return bufio.NewReader(a.in).ReadString('\n') })
}

// unlessEnded reads from the terminal until ctx ends. The reader is then left behind:
// nothing but the end of the process can stop it, and that comes next.
func unlessEnded(ctx context.Context, read func() (string, error)) (string, error) {
	type result struct {
		text string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := read()
		done <- result{text, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return "", fmt.Errorf("read from the terminal: %w", r.err)
		}
		return r.text, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// minPassphrase is the fewest characters of a passphrase for a new CA key.
const minPassphrase = 12

// passphrase reads the passphrase of a CA key: from the file if one is named, else
// from the terminal, twice for a new key.
func (a *app) passphrase(ctx context.Context, file, what string, isNew bool) (string, error) {
	text, err := a.readPassphrase(ctx, file, what, isNew)
	if err == nil && isNew && len(text) < minPassphrase {
		return "", &fault.Usage{Err: fmt.Errorf("the passphrase of %s must have %d characters or more", what, minPassphrase)}
	}
	return text, err
}

func (a *app) readPassphrase(ctx context.Context, file, what string, isNew bool) (string, error) {
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", &fault.Usage{Err: fmt.Errorf("read the passphrase: %w", err)}
		}
		return string(bytes.TrimRight(text, "\r\n")), nil
	}
	if !a.interactive() {
		return "", fault.Hinted(&fault.Usage{Err: fmt.Errorf("the key of %s needs a passphrase, and there is nobody to ask", what)},
			"--passphrase-file FILE, or --unencrypted for development")
	}
	first, err := a.readSecret(ctx, "passphrase of "+what)
	if err != nil || !isNew {
		return first, err
	}
	second, err := a.readSecret(ctx, "the same again")
	if err == nil && first != second {
		err = &fault.Usage{Err: errors.New("the two passphrases differ")}
	}
	return first, err
}

// readSecret reads a line that the terminal does not show, and leaves the terminal as
// it was, also when it is interrupted.
func (a *app) readSecret(ctx context.Context, prompt string) (string, error) {
	fd := int(a.in.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("ask for the passphrase: %w", err)
	}
	fmt.Fprintf(a.errOut, "%s: ", prompt)
	text, err := unlessEnded(ctx, func() (string, error) {
		secret, err := term.ReadPassword(fd)
		return string(secret), err
	})
	fmt.Fprintln(a.errOut)
	return text, errors.Join(err, term.Restore(fd, before))
}
