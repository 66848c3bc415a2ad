// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package keystest holds the tables of keys in a README against the configuration that they are about.
package keystest

import (
	"encoding"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"

	"github.com/deltaring/deltaring/internal/keys"
)

// Reference is a README and what it is held against. In the README every table counts whose first column is "key", or "key of `block`",
// and which has a column "default". Of the other columns two are checked where they are there: "type", and "refused", each of whose `literals` is tried.
type Reference struct {
	File   string
	Config func() component.Config // with defaults
	// Base is set before a refused value is tried, so that this value alone is to blame.
	Base map[string]any
	// Defaults are those that the configuration does not have but the code that reads it.
	Defaults map[string]string
	// Prose are the keys whose default the README says in words.
	Prose []string
	// Elsewhere is what keys begin with that another README has.
	Elsewhere string
}

var ofBlock = regexp.MustCompile("^key(?: of `([^`]*)`)?$")

var code = regexp.MustCompile("`([^`]*)`")

// Check fails the test for each key of this repository that has no row, each row without such a key, and each cell that is wrong.
func (r Reference) Check(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(r.File)
	if err != nil {
		t.Fatal(err)
	}
	known, rows := map[string]keys.Key{}, map[string]bool{}
	all := keys.Of(r.Config())
	for _, k := range all {
		known[k.Path] = k
	}
	for _, row := range tables(string(text)) {
		paths := literals(row["key"])
		for i := range paths {
			paths[i] = row["block"] + paths[i]
		}
		defaults := strings.Split(row["default"], ", ")
		for i, path := range paths {
			k, is := known[path]
			if !is {
				t.Errorf("%s: there is no key %s", r.File, path)
				continue
			}
			rows[path] = true
			said := row["default"]
			if len(paths) > 1 && len(defaults) == len(paths) {
				said = defaults[i]
			}
			r.compareDefault(t, k, said)
			r.compareType(t, k, row)
			r.tryRefused(t, k, row)
		}
	}
	for _, k := range all {
		if k.Own && !rows[k.Path] && (r.Elsewhere == "" || !strings.HasPrefix(k.Path, r.Elsewhere)) {
			t.Errorf("%s: no table has key %s", r.File, k.Path)
		}
	}
}

// tables returns the rows of all tables of keys, by column.
func tables(text string) (rows []map[string]string) {
	var columns []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			columns = nil
			continue
		}
		cells := strings.Split(strings.ReplaceAll(strings.Trim(line, "|"), `\|`, "\x00"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(strings.ReplaceAll(cells[i], "\x00", "|"))
		}
		if columns == nil {
			columns = cells
			continue
		}
		block := ofBlock.FindStringSubmatch(columns[0])
		if block == nil || !slices.Contains(columns, "default") || strings.HasPrefix(cells[0], "--") {
			continue
		}
		row := map[string]string{"key": cells[0], "block": ""}
		if block[1] != "" {
			row["block"] = block[1] + "::"
		}
		for i, cell := range cells[:min(len(cells), len(columns))] {
			row[columns[i]] = cell
		}
		rows = append(rows, row)
	}
	return rows
}

func literals(cell string) (all []string) {
	for _, m := range code.FindAllStringSubmatch(cell, -1) {
		all = append(all, m[1])
	}
	return all
}

func (r Reference) compareDefault(t *testing.T, k keys.Key, said string) {
	t.Helper()
	want, ok := r.Defaults[k.Path]
	if !ok {
		want = show(k.Value)
	}
	if said = strings.Trim(said, "`"); said == "none" {
		said = ""
	}
	if want == "0s" && said == "0" {
		said = want
	}
	if said != want && !slices.Contains(r.Prose, k.Path) {
		t.Errorf("%s: %s has the default %q, the table has %q", r.File, k.Path, want, said)
	}
}

// show is a default as a table has it. Blocks have none, their keys do.
func show(v reflect.Value) string {
	if s, ok := v.Interface().(time.Duration); ok {
		text := s.String()
		for _, nothing := range []string{"m0s", "h0m"} {
			if strings.HasSuffix(text, nothing) {
				text = text[:len(text)-2]
			}
		}
		return text
	}
	if v.Kind() == reflect.String {
		return v.String() // also of what prints as a secret
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok && v.Kind() != reflect.Pointer {
		text, err := m.MarshalText()
		if err != nil {
			return err.Error()
		}
		return string(text)
	}
	switch v.Kind() {
	case reflect.Struct, reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface:
		return ""
	}
	return fmt.Sprint(v.Interface())
}

// typeOf is the type of a key as a table has it.
func typeOf(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "duration"
	case t == reflect.TypeFor[*component.ID]():
		return "ID of an extension"
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return "string"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.String:
		return "string"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "integer"
	case reflect.Slice:
		return "list of " + typeOf(t.Elem()) + "s"
	case reflect.Pointer:
		return typeOf(t.Elem())
	case reflect.Struct:
		return "block"
	}
	return "any"
}

// compareType compares the type, and decodes each value that a key may be "one of".
func (r Reference) compareType(t *testing.T, k keys.Key, row map[string]string) {
	t.Helper()
	said, ok := row["type"]
	if !ok {
		return
	}
	want := typeOf(k.Value.Type())
	if values, is := strings.CutPrefix(said, "one of "); is && want == "string" {
		for _, v := range literals(values) {
			if err := r.decode(k, v, false); err != nil {
				t.Errorf("%s: %s may be %s: %v", r.File, k.Path, v, err)
			}
		}
		return
	}
	if said != want {
		t.Errorf("%s: %s is of type %q, the table has %q", r.File, k.Path, want, said)
	}
}

// tryRefused sees that each value which is said to be refused is, by an error that has the key.
func (r Reference) tryRefused(t *testing.T, k keys.Key, row map[string]string) {
	t.Helper()
	name := k.Path[strings.LastIndex(k.Path, ":")+1:]
	for _, v := range literals(row["refused"]) {
		switch err := r.decode(k, v, true); {
		case err == nil:
			t.Errorf("%s: %s: %s is not refused", r.File, k.Path, v)
		case !strings.Contains(err.Error(), name):
			t.Errorf("%s: the error for %s: %s does not name the key: %v", r.File, k.Path, v, err)
		}
	}
}

// decode has the Collector read a value of a key.
func (r Reference) decode(k keys.Key, literal string, validate bool) error {
	retrieved, err := confmap.NewRetrievedFromYAML([]byte(literal))
	if err != nil {
		return err
	}
	value, err := retrieved.AsRaw()
	if err != nil {
		return err
	}
	conf := confmap.NewFromStringMap(put(r.Base, strings.Split(k.Path, "::"), value).(map[string]any))
	cfg := r.Config()
	if err := conf.Unmarshal(cfg); err != nil || !validate {
		return err
	}
	return confmap.Validate(cfg)
}

// put returns a copy of in that has value at the path. An item of a list is its first.
func put(in any, path []string, value any) any {
	if len(path) == 0 {
		return value
	}
	if path[0] == "N" {
		first := any(nil)
		if list, _ := in.([]any); len(list) > 0 {
			first = list[0]
		}
		return []any{put(first, path[1:], value)}
	}
	out := map[string]any{}
	if old, ok := in.(map[string]any); ok {
		for name, v := range old {
			out[name] = v
		}
	}
	out[path[0]] = put(out[path[0]], path[1:], value)
	return out
}
