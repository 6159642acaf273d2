package cluster

import (
	"fmt"
	"strings"
	"testing"
)

func TestEveryTimingHasADefault(t *testing.T) {
	text := fmt.Sprintf("%+v", Timings{}.withDefaults())
	if strings.Contains(text, ":0s") || strings.Contains(text, ":0 ") {
		t.Fatal(text)
	}
}
