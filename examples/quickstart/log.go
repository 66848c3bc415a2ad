// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.uber.org/zap/zapcore"
)

// boardCore puts what the Collector logs on the board, where it does not disturb the table. What d2c does not add it logs with a
// sample of it, once a minute for each outcome; the board keeps that beside the count.
type boardCore struct {
	zapcore.LevelEnabler
	board *board
}

// With implements zapcore.Core. What a logger adds to all its lines, such as the name of the component, is left out: there is one.
func (c boardCore) With([]zapcore.Field) zapcore.Core { return c }

// Check implements zapcore.Core.
func (c boardCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

// Sync implements zapcore.Core.
func (boardCore) Sync() error { return nil }

// Write implements zapcore.Core.
func (c boardCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	encoder := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(encoder)
	}
	values := encoder.Fields
	if metric, ok := values["metric"].(string); ok {
		sample := loggedSeries(metric, values)
		if outcome, ok := values["outcome"].(string); ok {
			c.board.trouble(outcome, sample)
		}
		c.board.note("%s: %s. Such as %s", entry.Level.CapitalString(), entry.Message, sample)
		return nil
	}
	var more []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		more = append(more, fmt.Sprintf(" %s=%v", key, values[key]))
	}
	c.board.note("%s: %s%s", entry.Level.CapitalString(), entry.Message, strings.Join(more, ""))
	return nil
}

// loggedSeries names the series that a line of the log is about, as the table does.
func loggedSeries(metric string, values map[string]any) string {
	resource, _ := values["resource"].(map[string]any)
	producer := producerOf(func(key string) (string, bool) {
		v, ok := resource[key]
		return fmt.Sprint(v), ok
	})
	attributes, _ := values["attributes"].(map[string]any)
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		parts = append(parts, fmt.Sprintf("%s=%v", key, attributes[key]))
	}
	return producer + " " + label{metric: printable(metric), attrs: printable(strings.Join(parts, ","))}.series()
}
