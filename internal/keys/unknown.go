// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.opentelemetry.io/collector/confmap"
)

// Unmarshal decodes conf into cfg, a pointer to its struct, after Check. It is for the method Unmarshal of a configuration.
func Unmarshal(conf *confmap.Conf, cfg any, meant map[string]string) error {
	if err := Check(conf, cfg, meant); err != nil {
		return err
	}
	return conf.Unmarshal(cfg)
}

// Check returns an error for the first key of conf that cfg, a pointer to its struct, does not have, and says which one it has in its place.
// meant has keys that others have for the same thing, with what to write: {"resolver::kubernetes": "resolver::k8s"}. Keys of the
// Collector's own types are left to the Collector.
func Check(conf *confmap.Conf, cfg any, meant map[string]string) error {
	known := names{all: map[string]bool{}, below: map[string][]string{}, optional: map[string]bool{}}
	for _, k := range Of(cfg) {
		known.all[k.Path] = true
		known.optional[k.Path+"::"] = optional(k.Value.Type())
		if k.Own {
			above, name := split(k.Path)
			known.below[above] = append(known.below[above], name)
		}
	}
	return known.check("", conf.ToStringMap(), meant)
}

// split returns the last name of a key, and what it is below: "" or a key with "::".
func split(path string) (above, name string) {
	i := strings.LastIndex(path, "::")
	if i < 0 {
		return "", path
	}
	return path[:i+2], path[i+2:]
}

type names struct {
	all      map[string]bool
	below    map[string][]string // of structs of this repository
	optional map[string]bool     // what is below may be turned off, by a key that no struct has: enabled
}

// check goes through what is below a key. The index of an item is N in above, as in known keys.
func (n *names) check(above string, conf map[string]any, meant map[string]string) error {
	siblings, ours := n.below[above]
	for _, key := range slices.Sorted(maps.Keys(conf)) {
		path := above + key
		if key == "enabled" && n.optional[above] {
			continue
		}
		if ours && !slices.Contains(siblings, key) {
			return fmt.Errorf("%s: there is no such key; %s", path, n.instead(above, key, siblings, meant))
		}
		if err := n.value(path+"::", conf[key], meant); err != nil {
			return err
		}
	}
	return nil
}

func (n *names) value(above string, value any, meant map[string]string) error {
	switch value := value.(type) {
	case map[string]any:
		return n.check(above, value, meant)
	case []any:
		for _, item := range value {
			if err := n.value(above+"N::", item, meant); err != nil {
				return err
			}
		}
	}
	return nil
}

// instead says what to write in the place of a key that there is not.
func (n *names) instead(above, key string, siblings []string, meant map[string]string) string {
	kind, _, _ := strings.Cut(key, "/") // of the name of a component
	if m, ok := meant[above+kind]; ok {
		return m
	}
	for _, s := range siblings {
		if distance(plain(s), plain(key)) <= min(2, len(key)/3) || strings.HasPrefix(s, key+"_") {
			return fmt.Sprintf("did you mean %s%s?", above, s)
		}
	}
	var elsewhere []string
	for path := range n.all {
		if _, name := split(path); name == key {
			elsewhere = append(elsewhere, path)
		}
	}
	if len(elsewhere) == 1 {
		return fmt.Sprintf("did you mean %s?", elsewhere[0])
	}
	return "there are " + strings.Join(slices.Sorted(slices.Values(siblings)), ", ")
}

// plain is a name without what people write in different ways.
func plain(s string) string {
	return strings.NewReplacer("_", "", "-", "", ".", "").Replace(strings.ToLower(s))
}

// distance is how many letters make the one to the other: left out, put in, changed, or two swapped.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, before
		row[0] = i + 1
		for j := range len(b) {
			change := last[j]
			if a[i] != b[j] {
				change++
			}
			row[j+1] = min(change, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
