// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"strings"
	"testing"

	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// FuzzSplit: the parts of a batch are as the model has them, for all signals and keys and for up to 256 owners.
func FuzzSplit(f *testing.F) {
	for key := range uint8(8) {
		f.Add([]byte(nil), key, uint8(9), false)
		f.Add([]byte(strings.Repeat("\xff", 300)), key, uint8(1), true)
		f.Add([]byte(strings.Repeat("\xc0\x40\x80\xff\x20\xe0\x60\xa0", 60)), key, uint8(255), false)
	}
	f.Fuzz(func(t *testing.T, shape []byte, key, owners uint8, seeded bool) {
		seed, n := uint64(0), 1+int(owners)
		if seeded {
			seed = 1
		}
		spec := func(signal string) keySpec {
			specs := keySpecs(signal)
			return specs[int(key)%len(specs)]
		}
		metricsBatch.check(t, randomMetrics(newSteered(shape)), spec("metrics"), seed, n)
		tracesBatch.check(t, randomTraces(newSteered(shape)), spec("traces"), seed, n)
		logsBatch.check(t, randomLogs(newSteered(shape)), spec("logs"), seed, n)
	})
}

// FuzzSplitWire: so are those of whatever the decoder lets through.
func FuzzSplitWire(f *testing.F) {
	r := newSteered([]byte(strings.Repeat("\xff\xc0\x40\x80\x20\xe0\x60\xa0", 60)))
	for key := range uint8(8) {
		f.Add(metricsBatch.bytes(f, randomMetrics(r)), key, uint8(4))
		f.Add(tracesBatch.bytes(f, randomTraces(r)), key, uint8(4))
		f.Add(logsBatch.bytes(f, randomLogs(r)), key, uint8(4))
	}
	f.Fuzz(func(t *testing.T, wire []byte, key, owners uint8) {
		n := 1 + int(owners)
		spec := func(signal string) keySpec {
			specs := keySpecs(signal)
			return specs[int(key)%len(specs)]
		}
		if md, err := new(pmetric.ProtoUnmarshaler).UnmarshalMetrics(wire); err == nil {
			metricsBatch.check(t, md, spec("metrics"), 0, n)
		}
		if td, err := new(ptrace.ProtoUnmarshaler).UnmarshalTraces(wire); err == nil {
			tracesBatch.check(t, td, spec("traces"), 0, n)
		}
		if ld, err := new(plog.ProtoUnmarshaler).UnmarshalLogs(wire); err == nil {
			logsBatch.check(t, ld, spec("logs"), 0, n)
		}
	})
}
