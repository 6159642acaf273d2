package config

import "reflect"

// Live are the fields that a running node follows when its file is read again. All others
// are followed at the next start.
var Live = []string{"drain.delay", "log.level"}

// Differences names the fields, as in client.listen, that two configurations do not have in
// common, in the order of the file.
func (c Config) Differences(other Config) []string {
	return differences("", reflect.ValueOf(c), reflect.ValueOf(other))
}

func differences(path string, a, b reflect.Value) (names []string) {
	if a.Kind() != reflect.Struct {
		if !reflect.DeepEqual(a.Interface(), b.Interface()) {
			names = append(names, path)
		}
		return names
	}
	for i := range a.NumField() {
		name := a.Type().Field(i).Tag.Get("yaml")
		if path != "" {
			name = path + "." + name
		}
		names = append(names, differences(name, a.Field(i), b.Field(i))...)
	}
	return names
}
