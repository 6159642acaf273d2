package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// text is a string that is quoted wherever a reader of YAML could take it for
// something else. The library quotes by its own scanner's rules, which let some
// through, such as a comma in a flow sequence.
type text string

// plain is what needs no quotes, in any place and for any reader; words are the
// exceptions.
var (
	plain = regexp.MustCompile(`^(spiffe://)?[A-Za-z_/][A-Za-z0-9_./-]*(/\*)?$|^[0-9]+(h|m|ms|s|ns|µs)[0-9a-zµ.]*$`)
	words = []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
)

// MarshalYAML writes the text plain or as a JSON string, which is YAML too.
func (t text) MarshalYAML() ([]byte, error) {
	if plain.MatchString(string(t)) && !slices.Contains(words, strings.ToLower(string(t))) {
		return []byte(t), nil
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(string(t)); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(out.Bytes()), nil
}

func texts[T ~string](all []T) []text {
	var converted []text
	for _, s := range all {
		converted = append(converted, text(s))
	}
	return converted
}

func stringsOf(all []text) []string {
	var converted []string
	for _, t := range all {
		converted = append(converted, string(t))
	}
	return converted
}

// durationText is empty for no duration.
func durationText(d time.Duration) text {
	if d == 0 {
		return ""
	}
	return text(d.String())
}

func parseDuration(t text) (time.Duration, error) {
	if t == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(string(t))
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as 90s, 15m or 720h", clip(t))
	}
	if d < 0 {
		return 0, fmt.Errorf("%s is negative", d)
	}
	return d, nil
}

func clip[T ~string](s T) string {
	if len(s) > 80 {
		return string(s[:80]) + "…"
	}
	return string(s)
}
