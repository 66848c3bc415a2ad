// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:generate go run generate.go

// Package d2cprocessor is the Collector processor "d2c": package d2c with configuration, telemetry and a lifecycle.
//
//	processors:
//	  d2c:                       # everything is optional; these are the defaults
//	    max_stale: 1h
//	    max_streams: 10000000
//	    max_buckets: 4096        # of a histogram
//	    gap: continue            # continue | restart | restart_if_moved
//	    overlap: add             # add | drop | interpolate
//	    late_window: 5m
//	    writers: one             # one | many: producers that share an identity
//	    identical: repeat        # repeat | add: what an identical delta is, with writers: many
//	    missing_time: drop       # drop | arrival
//	    repair: {}               # switches for what is repaired, all on: see RepairConfig
//	    summaries: []            # names of metrics, with * and ?, whose summaries carry deltas
//	    warn_duplicates: service # service | resource | none: what the backend makes labels of
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
// Delta sums, histograms of both kinds, and summaries that are named become cumulative; everything else passes untouched and
// uncopied. What becomes of each point is the table in the comment of package d2c; README.md has all keys, and for every outcome
// what to do about it; documentation.md has the telemetry.
//
// An error of the next component is returned as it is, so that the sender retries. The retried deltas are not added again, and
// the stream's latest sample goes out in their place: nothing is lost and nothing counts twice.
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
// # What the log says
//
// At WARN, which is told by default, there is a line for each outcome that loses a point, or may: at once, and then once a minute with how
// many there were since. It has a sample: resource, scope, metric and attributes, the interval, and where the stream stands. So
// lines have values of attributes, cut to 200 bytes each and 20 attributes; who must not log these sets the level to ERROR. Once for
// each of 100 metrics there is a line on points that do not say whether they are deltas, and one on streams that the backend
// takes for one series (warn_duplicates); once for all on overlap: interpolate with a producer whose start never moves.
//
// Not with each other: max_stale above the record_ttl of shared state, and state::shared with gap: restart_if_moved, are refused;
// state::shared with gap: restart works, and is warned of.
//
// # One stream out of many
//
// Pods of one Deployment count the same things, and what is asked is the total. With aggregate the processor makes it, exactly:
//
//	processors:
//	  d2c:
//	    aggregate:
//	      - metrics: [http.server.*]
//	        drop: {resource: [service.instance.id, k8s.pod.name, k8s.pod.uid]}
//
// Streams that differ only in what is dropped are the writers of one total. A retry counts once, a late delta counts, a pod that comes or
// goes changes nothing; with state, nor does a restart of the Collector. Deltas and cumulative points may be mixed. See Aggregation in the
// comment of package d2c for all rules. What is to be known here:
//
//   - keep names what stays, and all else goes; a name that a point lacks is lacking in the total as well. An empty list keeps nothing, a missing one
//     leaves its part alone.
//   - Each total must come to one Collector: gateways of the exporter ring have routing_key: aggregate and the same list. With state::shared any
//     Collector may take any point; where several count one total they get in each other's way, which costs time.
//   - Batches of many pods may overtake each other on the way to the backend. The connector lanes puts samples in order; or set interval, and
//     they come by the clock.
//   - A list that changes begins the totals of changed rules anew.
//
// # Prometheus and counters that are counted seldom
//
// Prometheus goes by samples: increase() does not count what the first sample of a counter says, and rate() needs two in its range.
// emit_zero gives it a zero before the first sample, and reemit_interval the latest sample of a quiet stream again and
// again, until it expires. Samples stay in order through restarts (with state) and retries. A zero comes once: where the next component has
// refused the batch that it was in, the retry brings the first sample without it. By OTLP Prometheus refuses what sets back the
// target_info of a resource, as both do: give it an out_of_order_time_window of ten minutes, or use remote write without target_info.
// Or let it make zeros from start timestamps (created-timestamp-zero-ingestion), and leave emit_zero off. Summaries have no zeros,
// and are not given out again. With shared state one worker gives out a stream, the last that counted it; what a worker knew that
// has ended, or that has restarted, waits for its next delta. With gap: restart_if_moved, after a change of the ring each stream
// waits for its next delta, as it may have moved; with any other gap and no shared state, a worker goes on giving out what has
// moved away. Nobody tells a worker that it is out of the ring: it gives out what it had until it ends, which should be soon.
// While state cannot be stored, nothing is given out again.
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
