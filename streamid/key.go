// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid

import (
	"fmt"
	"slices"
	"strings"
)

// Signal is a kind of telemetry.
type Signal uint8

// The signals that can be split.
const (
	SignalMetrics Signal = iota + 1
	SignalTraces
	SignalLogs
)

// String returns "metrics", "traces" or "logs".
func (s Signal) String() string {
	switch s {
	case SignalMetrics:
		return "metrics"
	case SignalTraces:
		return "traces"
	case SignalLogs:
		return "logs"
	}
	return fmt.Sprintf("signal %d", uint8(s))
}

// Key says which data is used for routing. It is made by ParseKey or Rules.Key and does not change. The zero value is the
// key that contrib's load_balancing exporter uses if none is configured: traceID for traces, service for metrics and logs.
type Key struct {
	kind  keyKind
	names []string // of attributes, for keyAttributes
	rules *Rules   // for keyAggregate

	grouped bool // keyStreamID and keyAggregate by Hi alone
}

type keyKind uint8

const (
	keyDefault keyKind = iota
	keyStreamID
	keyMetric
	keyResource
	keyService
	keyTraceID
	keyAttributes
	keyAggregate
)

// keyNames are those of contrib's load_balancing exporter, which has no aggregate, and of this table's index.
var keyNames = [...]string{
	keyDefault:    "",
	keyStreamID:   "streamID",
	keyMetric:     "metric",
	keyResource:   "resource",
	keyService:    "service",
	keyTraceID:    "traceID",
	keyAttributes: "attributes",
	keyAggregate:  "aggregate",
}

// ParseKey returns the key with the given name. The names are those that the load_balancing exporter uses in routing_key and
// routing_attributes:
//
//	streamID    metrics                 the identity of the stream
//	metric      metrics                 the metric's name
//	resource    metrics, traces, logs   all attributes of the resource
//	service     metrics, traces, logs   the resource attribute service.name
//	traceID              traces, logs   the trace ID
//	attributes  metrics, traces, logs   the values of the named attributes
//
// An empty name returns the zero Key. Attribute names may be given only with the key "attributes", which needs at least one.
// Each is looked up in the resource, then in the scope, then in the data point, span or log record. If resource and scope
// lack them, span.name and span.kind are a span's name and kind (as in SpanKind.String), and log.severity and log.body a log
// record's severity text and body. The order of names does not matter.
//
// There is one more key, "aggregate" for metrics, which is made from Rules: see Rules.Key.
func ParseKey(name string, attributes []string) (Key, error) {
	kind := slices.Index(keyNames[:], name)
	if kind < 0 {
		return Key{}, fmt.Errorf("unknown routing key %.40q, %s", name, instead(name))
	}
	if keyKind(kind) == keyAggregate {
		return Key{}, fmt.Errorf("routing key %q is made of rules, not of its name", name)
	}
	k := Key{kind: keyKind(kind), names: slices.Clone(attributes)}
	if k.kind != keyAttributes {
		if len(attributes) > 0 {
			return Key{}, fmt.Errorf("routing key %q takes no attributes, got %.40q", name, attributes[0])
		}
		return k, nil
	}
	if len(attributes) == 0 {
		return Key{}, fmt.Errorf("routing key %q needs at least one attribute", name)
	}
	for i, a := range attributes {
		if a == "" {
			return Key{}, fmt.Errorf("routing key %q: attribute %d of %d has no name", name, i+1, len(attributes))
		}
		if slices.Contains(attributes[:i], a) {
			return Key{}, fmt.Errorf("routing key %q: attribute %.40q is listed twice", name, a)
		}
	}
	return k, nil
}

// instead says which key may have been meant by an unknown name.
func instead(name string) string {
	for _, known := range keyNames[1:] {
		if strings.EqualFold(known, strings.NewReplacer("_", "", "-", "", ".name", "").Replace(name)) {
			return fmt.Sprintf("did you mean %q?", known)
		}
	}
	return "want one of " + strings.Join(keyNames[1:], ", ")
}

// Grouped returns a key that routes whole groups of streams to one owner by its top bits: the first half of the identity,
// ID.Hi, for the keys "streamID" and "aggregate". Stores that keep one log for each group of streams divide streams by the
// top bits of ID.Hi, which all writers of a total share. A ring with as many slots as there are groups then gives each group
// one owner. Seed and tenants must be those used to identify the streams elsewhere.
//
// Any other key is an error, because it may give the streams of a group several owners.
func (k Key) Grouped() (Key, error) {
	if k.kind != keyStreamID && k.kind != keyAggregate {
		return Key{}, fmt.Errorf("routing key %q does not keep groups of streams together, want %s or %s",
			keyNames[k.kind], keyNames[keyStreamID], keyNames[keyAggregate])
	}
	k.grouped = true
	return k, nil
}

// String returns the name of the key, followed by its attributes or rules if it has any. Keys that read the same route alike.
func (k Key) String() string {
	if k.grouped {
		k.grouped = false
		return k.String() + ", grouped"
	}
	switch k.kind {
	case keyAttributes:
		return fmt.Sprintf("%s %q", keyNames[k.kind], k.names)
	case keyAggregate:
		return fmt.Sprintf("%s %v", keyNames[k.kind], k.rules)
	}
	return keyNames[k.kind]
}

// Check returns an error if data of this signal has no such key.
func (k Key) Check(s Signal) error {
	switch k.kind {
	case keyStreamID, keyMetric, keyAggregate:
		if s == SignalMetrics {
			return nil
		}
	case keyTraceID:
		if s == SignalTraces || s == SignalLogs {
			return nil
		}
	default:
		if s == SignalMetrics || s == SignalTraces || s == SignalLogs {
			return nil
		}
	}
	return fmt.Errorf("routing key %q does not go with %v", keyNames[k.kind], s)
}

// kindFor returns the kind of key for a signal. It panics where Check returns an error.
func (k Key) kindFor(s Signal) keyKind {
	if err := k.Check(s); err != nil {
		panic(err)
	}
	if k.kind != keyDefault {
		return k.kind
	}
	if s == SignalTraces {
		return keyTraceID
	}
	return keyService
}
