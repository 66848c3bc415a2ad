// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:generate go run generate.go

// Package ringexporter is the Collector exporter "ring": the first tier of two. It splits metrics, traces and logs by a
// routing key and sends each part over OTLP to the one member of a fleet that owns it, as contrib's load_balancing
// exporter does and with a configuration of the same shape. Exporters that see the same members route alike without
// talking to one another.
//
// How the pieces fit: a resolver says who the members are, a view is a ring together with a running member for each of
// them, and the exporter publishes views atomically. A batch is split by the view that is current, and each part is
// handed to its owner, which is a queue in front of an exporter made by the Collector's own OTLP factory.
package ringexporter
