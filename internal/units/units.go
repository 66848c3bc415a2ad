// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package units finds durations in configurations that lack their unit.
package units

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// shortestDuration is what no setting needs to be shorter than. A number without a unit is one of nanoseconds, so
// "timeout: 5" is shorter.
const shortestDuration = time.Millisecond

// Check returns an error for the first duration in a configuration, which is a pointer to a struct, that must lack its unit. It
// goes by the types of the Collector's configuration, so that it knows all durations there are, and those of its next version.
func Check(cfg any) error { return check("", reflect.ValueOf(cfg)) }

func check(path string, v reflect.Value) error {
	if d, ok := v.Interface().(time.Duration); ok {
		if d > 0 && d < shortestDuration {
			return fmt.Errorf("%s: must be a millisecond at least, got %v; is there a unit missing?", path, d)
		}
		return nil
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return check(path, v.Elem())
	case reflect.Struct:
	default:
		return nil
	}
	// A configoptional.Optional.
	if o, ok := v.Addr().Interface().(interface{ HasValue() bool }); ok {
		if get := v.Addr().MethodByName("Get"); o.HasValue() && get.IsValid() {
			return check(path, get.Call(nil)[0])
		}
		return nil
	}
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if !field.IsExported() {
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("mapstructure"), ",")
		sub := path
		if name != "" && path != "" {
			sub += "::"
		}
		if err := check(sub+name, v.Field(i)); err != nil {
			return err
		}
	}
	return nil
}
