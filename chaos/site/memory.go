package site

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// AnonymousMemory is a process's resident memory that no file stands behind, in bytes.
func AnonymousMemory(pid int) (int, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.Atoi(strings.Fields(value)[0])
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("process %d tells no RssAnon", pid)
}
