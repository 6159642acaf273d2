package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/armordb/armordb/armor"
	"github.com/armordb/armordb/cmd/armord/config"
)

const (
	healthPatience = 5 * time.Second // for all of the question and its answer
	maxHealth      = 16 << 10        // bytes of an answer that are read
)

// healthCommand asks the node that runs with a configuration how it is: the one way to
// do so where there is no curl, as in the container image.
func healthCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "health --config FILE",
		Short: "ask the node on this machine whether it lives, or is ready",
		Long: `Asks the ops port of the configuration's node: /livez, or /readyz with --ready. Exit
code 0 when the answer is yes, and 1 when it is no or there is none, as HEALTHCHECK of
a container image and probes of orchestrators want it.

A node that waits for its cluster, or drains, lives and is not ready: restart it by
the former only, and send it clients by the latter.`,
		Args: noArgs,
	}
	path := configFlag(cmd)
	ready := cmd.Flags().Bool("ready", false, "ask whether new clients can be served, and what is missing if not")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		answer, err := askHealth(cmd.Context(), *path, *ready)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), answer)
		return err
	}
	return cmd
}

// askHealth returns what the node answered when that was yes, and else an error that is
// no *config.Mistake: to whoever probes, a file that cannot be read is one more way of
// not being healthy.
func askHealth(ctx context.Context, path string, ready bool) (string, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return "", fmt.Errorf("cannot tell where the node answers: %v", err)
	}
	address, err := cfg.OpsTarget()
	if err != nil {
		return "", err
	}
	question := url.URL{Scheme: "http", Host: address, Path: "/livez"}
	if ready {
		question.Path, question.RawQuery = "/readyz", "verbose"
	}
	ctx, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, question.String(), nil)
	if err != nil {
		return "", err
	}
	return answered(request)
}

// answered returns the body of the answer 200. It goes through no proxy and follows
// nobody elsewhere: the node's own word counts.
func answered(request *http.Request) (string, error) {
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", armor.ErrUnavailable, request.URL, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxHealth))
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", armor.ErrUnavailable, request.URL, err)
	}
	text := printable(string(body))
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%w: %s says %d\n%s", armor.ErrUnavailable, request.URL, response.StatusCode, text)
	}
	return text, nil
}

// printable is the text without what could steer a terminal: whoever has the port may
// be somebody else.
func printable(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s))
}
