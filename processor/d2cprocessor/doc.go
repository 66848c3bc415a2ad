// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:generate go run generate.go

// Package d2cprocessor is the Collector processor "d2c": package d2c with configuration, telemetry and a lifecycle.
//
//	processors:
//	  d2c:                       # everything is optional; these are the defaults
//	    max_stale: 1h
//	    max_streams: 10000000
//	    gap: continue            # continue | restart
//	    overlap: add             # add | drop | interpolate
//	    late_window: 5m
//	    emit_zero: false         # a zero before the first sample of each life
//	    reemit_interval: 0s      # give quiet streams out again
//	    stale_markers: false     # and end those that expire; needs reemit_interval
//	    metadata_keys: []        # headers that tell tenants apart
//	    seed: 0                  # of the identities of streams
//	    state:
//	      storage: ""            # for instance file_storage
//	      shared: ""             # for instance redis_state; not both
//	      on_error: reject       # reject | local, if shared fails
//	      max_outstanding: 1000000
//
// Delta sums and histograms of both kinds become cumulative; everything else passes untouched and uncopied. What becomes
// of each point is the table in the comment of package d2c; documentation.md has the telemetry, and for every outcome what
// to do about it.
//
// An error of the next component is returned as it is, so that the sender retries. The retried deltas are recognised as
// already counted, and the stream's latest sample goes out in their place: nothing is lost and nothing counts twice.
//
// State is in memory unless state says otherwise:
//
//   - Nothing: a restart of the Collector restarts the streams, and all deltas of a stream must reach the same instance.
//   - storage, a storage extension: a batch is stored before it is passed on or acknowledged. Restarts and crashes lose
//     nothing. All deltas of a stream must reach the same instance still.
//   - shared, an extension that implements [SharedState]: the same, and any instance of any Collector takes any delta.
//
// A batch whose state cannot be stored is refused, to be sent again, and the component's status is recoverable until one can
// be. A processor with state may be in one pipeline only, as the Collector makes an instance for each.
//
// # Prometheus and counters that are counted seldom
//
// Prometheus goes by samples: increase() does not count what the first sample of a counter says, and rate() needs two in its range.
// emit_zero gives it a zero before the first sample, and reemit_interval the latest sample of a quiet stream again and
// again, until it expires. Samples stay in order through restarts (with state) and retries, but for one case: where the next component
// has taken a counter's first sample and its sender did not hear of it, the retry gives out the zero once more, and a backend that
// takes samples only in order refuses it. With shared state one worker gives out a stream, the last that counted it; what a worker
// knew that has ended, or that has restarted, waits for its next delta. While state cannot be stored, nothing is given out again.
//
// # Tenants
//
// With metadata_keys: [x-tenant] the streams of each value of that header are streams of their own, whatever their attributes, in
// all kinds of state. The receiver must hand on the header, and whatever collects batches on the way must keep tenants apart:
//
//	receivers:
//	  otlp: {protocols: {grpc: {include_metadata: true}, http: {include_metadata: true}}}
//	processors:
//	  batch: {metadata_keys: [x-tenant]}
//	  d2c: {metadata_keys: [x-tenant]}
//
// What tenants get out has the same attributes, so the next component must keep them apart, for instance by an extension
// headers_setter. Behind gateways, the exporter ring needs the same metadata_keys.
//
// Requests without any of the headers are as without metadata_keys, so setting it or adding a key changes only the streams of those who
// send the header: they begin anew, visibly. Change it on all Collectors of a fleet at once. Taking it back within max_stale goes on
// with the totals of before, as after a gap; set gap: restart if that matters.
package d2cprocessor
