package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// fieldChanges names the fields in which two specs of one kind differ, in the order of
// their paths.
func fieldChanges(old, new any) ([]FieldChange, error) {
	before, err := leaves(old)
	if err != nil {
		return nil, err
	}
	after, err := leaves(new)
	if err != nil {
		return nil, err
	}
	paths := maps.Clone(before)
	maps.Copy(paths, after)
	var changes []FieldChange
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if before[path] != after[path] {
			changes = append(changes, FieldChange{Path: path, Old: before[path], New: after[path]})
		}
	}
	return changes, nil
}

// leaves are a spec's fields by path, each as YAML on one line.
func leaves(spec any) (map[string]string, error) {
	text, err := yaml.Marshal(spec)
	if err != nil {
		return nil, err
	}
	var tree any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		return nil, err
	}
	all := map[string]string{}
	return all, flatten(all, "spec", tree)
}

func flatten(into map[string]string, path string, v any) error {
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			if err := flatten(into, path+"."+key, inner); err != nil {
				return err
			}
		}
		if len(v) > 0 {
			return nil
		}
	case []any:
		if len(v) > 0 && isMapping(v[0]) {
			for i, inner := range v {
				if err := flatten(into, fmt.Sprintf("%s[%d]", path, i), inner); err != nil {
					return err
				}
			}
			return nil
		}
	}
	text, err := yaml.MarshalWithOptions(v, yaml.Flow(true))
	into[path] = strings.TrimSpace(string(text))
	return err
}

func isMapping(v any) bool {
	_, ok := v.(map[string]any)
	return ok
}
