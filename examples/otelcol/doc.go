// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package otelcol holds a Collector Builder manifest with the d2c processor, configurations to start from, and the tests
// that run them: the built Collector between real OTLP clients and a real Prometheus. It has no code of its own.
package otelcol
