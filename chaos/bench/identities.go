package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/armordb/armordb/chaos/site"
)

// neighbourIdentities is how many identities share a role's server connections in the
// cell of that kind.
const neighbourIdentities = 8

func identityName(i int) string { return fmt.Sprintf("neighbour-%d", i+1) }

// identities are the objects of the neighbours, in the words of a manifest.
func identities() string {
	var b strings.Builder
	for i := range neighbourIdentities {
		fmt.Fprintf(&b, `---
apiVersion: armor/v1
kind: Identity
metadata: {name: %[1]s, environment: dev}
spec:
  id: spiffe://dev.armor-dev.internal/app/%[1]s
  owner: bench
  grants:
  - {database: %[2]s, roles: [%[3]s], pool: app}
`, identityName(i), site.AppDatabase, site.AppRole)
	}
	return b.String()
}

// issueAll makes a certificate for each neighbour and returns what its clients need to
// show it.
func (b *comparison) issueAll(ctx context.Context, c *site.Cluster) error {
	for i := range neighbourIdentities {
		dir := filepath.Join(b.Dir, "identities", identityName(i))
		_, err := c.Armorctl(ctx, "cert", "issue", identityName(i), "--environment", "dev", "--ca", filepath.Join(c.Dir, "ca", "dev-client"),
			"--out", dir)
		if err != nil {
			return err
		}
		b.certificates = append(b.certificates,
			[]string{"PGSSLCERT=" + filepath.Join(dir, "client.crt"), "PGSSLKEY=" + filepath.Join(dir, "client.key")})
	}
	return nil
}

// together has each neighbour run the cell's work at the same time.
func (b *comparison) together(ctx context.Context, s system, args []string) (Sample, error) {
	samples, errs := make([]Sample, len(b.certificates)), make([]error, len(b.certificates))
	var running sync.WaitGroup
	for i, certificate := range b.certificates {
		as := s
		as.env = append(append([]string{}, s.env...), certificate...)
		running.Go(func() { samples[i], errs[i] = b.once(ctx, as, args) })
	}
	running.Wait()
	return sumOf(samples), errors.Join(errs...)
}

// sumOf is what several made that ran at the same time. Each was told the CPU time of all
// divided by its own work, so the time in a second is the same, and the work adds up.
func sumOf(samples []Sample) (sum Sample) {
	var used float64 // in nanoseconds of each second, on the average
	for _, s := range samples {
		sum.Rate += s.Rate
		used += float64(s.CPU) * s.Rate / float64(len(samples))
	}
	if sum.Rate > 0 {
		sum.CPU = time.Duration(used / sum.Rate)
	}
	return sum
}
