package config

import (
	"slices"
	"testing"
)

func TestDifferencesAreNamedAsInTheFile(t *testing.T) {
	parse := func(more string) Config {
		t.Helper()
		c, err := Parse([]byte(minimal+more), "/etc/armord")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, test := range []struct {
		more string
		want []string
	}{
		{"", nil},
		{"log: {level: info}\n", nil}, // as the default
		{"log: {level: debug}\n", []string{"log.level"}},
		{"client: {listen: ':7', environments: [a], proxyProtocol: {from: [10.0.0.0/8]}}\nclockSkew: 9s\n",
			[]string{"client.listen", "client.environments", "client.proxyProtocol.from", "clockSkew"}},
	} {
		if got := parse(test.more).Differences(parse("")); !slices.Equal(got, test.want) {
			t.Errorf("%q: %q, want %q", test.more, got, test.want)
		}
	}
}
