package console

import (
	"slices"
	"time"
)

var statsNames = []string{"server_assignment_count", "xact_count", "query_count", "received", "sent", "xact_time", "query_time",
	"wait_time", "client_parse_count", "server_parse_count", "bind_count", "client_login_count"}

var statsColumns = columns("s"+"NNNNNNNNNNNN"+"NNNNNNNNNNNN", slices.Concat([]string{"database"}, prefixed("total_"), prefixed("avg_"))...)

var statsPartColumns = columns("sNNNNNNNNNNNN", "database", "server_assignment_count", "xact_count", "query_count",
	"bytes_received", "bytes_sent", "xact_time", "query_time", "wait_time", "client_parse_count", "server_parse_count", "bind_count",
	"client_login_count")

// prefixed names the columns of SHOW STATS; one of them has two names.
func prefixed(prefix string) []string {
	var all []string
	for _, n := range statsNames {
		if prefix == "avg_" && n == "received" {
			n = "recv"
		}
		all = append(all, prefix+n)
	}
	return all
}

// numbers are those of statsNames.
func (t Totals) numbers() []any {
	us := func(d time.Duration) int { return int(d / time.Microsecond) }
	return []any{int(t.Assignments), int(t.Transactions), int(t.Queries), int(t.Received), int(t.Sent), us(t.Lent), us(t.Lent), us(t.Waited),
		int(t.ClientParses), int(t.ServerParses), int(t.Binds), int(t.Logins)}
}

// numbers are the same by the second, but the times of transactions and queries, which
// are means.
func (r Rates) numbers() []any {
	n := r.Totals.numbers()
	n[5], n[6] = int(r.Transaction/time.Microsecond), int(r.Query/time.Microsecond)
	return n
}

// statsRows has a row for each database.
func (s *session) statsRows(of func(Totals, Rates) []any) []row {
	var rows []row
	for _, d := range SumDatabases(s.tallies()) {
		rows = append(rows, append(row{d.Database.Name}, of(d.Totals, d.Rates)...))
	}
	return append(rows, append(row{ownName}, of(Totals{}, Rates{})...))
}

func (s *session) showStats() []row {
	return s.statsRows(func(t Totals, r Rates) []any {
		totals, rates := t.numbers(), r.numbers()
		return slices.Concat(totals, rates, []any{totals[2], rates[2], rates[6]})
	})
}

func (s *session) showStatsTotals() []row {
	return s.statsRows(func(t Totals, _ Rates) []any { return t.numbers() })
}

func (s *session) showStatsAverages() []row {
	return s.statsRows(func(_ Totals, r Rates) []any { return r.numbers() })
}

func (s *session) showTotals() []row {
	var total Totals
	var rates Rates
	for _, t := range s.tallies() {
		total.Add(t.Totals)
		rates.Add(t.Rates)
	}
	var rows []row
	for _, part := range []struct {
		prefix  string
		numbers []any
	}{{"total_", total.numbers()}, {"avg_", rates.numbers()}} {
		for i, name := range statsNames {
			switch name { // SHOW TOTALS has names of its own for these
			case "received":
				name = "client_bytes"
			case "sent":
				name = "server_bytes"
			}
			rows = append(rows, row{part.prefix + name, part.numbers[i]})
		}
	}
	return rows
}
