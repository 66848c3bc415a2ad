// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"reflect"
	"strings"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.uber.org/zap"
)

// behind is what is behind the lanes: the next consumer.
type behind interface{ Capabilities() consumer.Capabilities }

// warnOfQueues says which exporters behind the lanes have queues of their own: these take all at once, and then their consumers
// decide what is in order. The Collector has no way to ask, so this looks for the type that exporters have in common. It sees those
// that no processor hides.
func warnOfQueues(logger *zap.Logger, b behind) {
	for _, id := range queuesIn(reflect.ValueOf(b), map[uintptr]bool{}, 0) {
		logger.Warn("an exporter behind the lanes has a queue of its own, so that lanes neither keep its requests in order nor know "+
			"what became of them: set sending_queue::enabled to false there (remote_write_queue in prometheus_remote_write), and "+
			"sending_queue here if one is wanted", zap.String("exporter", id))
	}
}

const (
	helperPath = "go.opentelemetry.io/collector/exporter/exporterhelper"
	deepest    = 16
)

// queuesIn returns the IDs of exporters with queues that are found from v on. It only looks.
func queuesIn(v reflect.Value, seen map[uintptr]bool, depth int) (ids []string) {
	if depth > deepest || !v.IsValid() {
		return nil
	}
	switch v.Kind() {
	case reflect.Interface:
		return queuesIn(v.Elem(), seen, depth+1)
	case reflect.Pointer:
		if v.IsNil() || seen[v.Pointer()] {
			return nil
		}
		seen[v.Pointer()] = true
		return queuesIn(v.Elem(), seen, depth+1)
	case reflect.Slice:
		for i := range v.Len() {
			ids = append(ids, queuesIn(v.Index(i), seen, depth+1)...)
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			ids = append(ids, queuesIn(it.Value(), seen, depth+1)...)
		}
	case reflect.Struct:
		if t := v.Type(); t.Name() == "BaseExporter" && strings.HasPrefix(t.PkgPath(), helperPath) {
			return queueOf(v)
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.Anonymous || leadsOn(f.Type) {
				ids = append(ids, queuesIn(v.Field(i), seen, depth+1)...)
			}
		}
	}
	return ids
}

// leadsOn returns whether data goes on by what has such a type. All else is not looked at: it belongs to components that run
// already, and to read a map while they write it would end the Collector.
func leadsOn(t reflect.Type) bool {
	if t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		return leadsOn(t.Elem())
	}
	return t.Implements(reflect.TypeFor[behind]())
}

// queueOf returns the ID of an exporter if it has a queue.
func queueOf(base reflect.Value) []string {
	queue, set := base.FieldByName("QueueSender"), base.FieldByName("Set")
	if !queue.IsValid() || queue.Kind() != reflect.Interface || queue.IsNil() || !set.IsValid() || set.Kind() != reflect.Struct {
		return nil
	}
	id := set.FieldByName("ID")
	if !id.IsValid() || id.Type() != reflect.TypeFor[component.ID]() || id.NumField() != 2 {
		return []string{"unknown"}
	}
	// Fields of unexported ones cannot be taken out as values; strings can be read.
	name := id.Field(1)
	text := id.Field(0)
	if text.Kind() == reflect.Struct && text.NumField() == 1 {
		text = text.Field(0)
	}
	if name.Kind() != reflect.String || text.Kind() != reflect.String {
		return []string{"unknown"}
	}
	return []string{strings.TrimSuffix(text.String()+"/"+name.String(), "/")}
}
