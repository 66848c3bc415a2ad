// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package keys knows which keys a configuration has, by its type. Documents are held against them, and a key that is unknown is
// answered with the one that was meant.
package keys

import (
	"encoding"
	"reflect"
	"strings"
)

// Key is one key of a configuration.
type Key struct {
	// Path is the key with those above it, as errors of the Collector have it: "state::on_error". N stands for the number of an
	// item of a list: "aggregate::N::metrics".
	Path string
	// Own says that the key is one of this repository. Others come with the Collector's own types.
	Own bool
	// Value has the default. Below a list or a pointer it is the zero value.
	Value reflect.Value
}

// home is what the packages of this repository have in common.
const home = "github.com/deltaring/deltaring"

// Of returns the keys of a configuration, a pointer to a struct, in the order of its fields.
func Of(cfg any) []Key {
	w := &walk{}
	w.fields("", reflect.ValueOf(cfg).Elem(), false)
	return w.keys
}

type walk struct{ keys []Key }

// fields adds the keys of a struct.
func (w *walk) fields(prefix string, v reflect.Value, own bool) {
	own = own || strings.HasPrefix(v.Type().PkgPath(), home)
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("mapstructure"), ",")
		switch {
		case !field.IsExported() || name == "-":
		case strings.Contains(options, "squash"):
			w.fields(prefix, v.Field(i), own)
		case name != "":
			w.keys = append(w.keys, Key{prefix + name, own, v.Field(i)})
			w.below(prefix+name+"::", v.Field(i))
		}
	}
}

var text = reflect.TypeFor[encoding.TextUnmarshaler]()

// below adds the keys below a key, if there are any.
func (w *walk) below(prefix string, v reflect.Value) {
	t := v.Type()
	switch {
	case reflect.PointerTo(t).Implements(text) || t.Implements(text):
	case optional(t):
		own := reflect.New(t)
		own.Elem().Set(v)
		w.below(prefix, own.MethodByName("GetOrInsertDefault").Call(nil)[0].Elem())
	case t.Kind() == reflect.Struct:
		w.fields(prefix, v, false)
	case t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct:
		w.below(prefix, reflect.New(t.Elem()).Elem())
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		w.below(prefix+"N::", reflect.New(t.Elem()).Elem())
	}
}

// optional reports whether t is a configoptional.Optional.
func optional(t reflect.Type) bool {
	_, is := reflect.PointerTo(t).MethodByName("GetOrInsertDefault")
	return is
}
