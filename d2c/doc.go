// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package d2c turns delta metrics into exact cumulative ones.
//
// A [Converter] keeps one small state per stream (identity: package streamid) and adds each delta to it once:
//
//	conv, err := d2c.New(d2c.DefaultConfig())
//	...
//	result, err := conv.Convert(ctx, md) // md is cumulative now; result counts every point by outcome
//
// # The types
//
// A [Converter] converts batches according to its [Config], and a [Result] counts their points by [Outcome]. There are three
// ways to keep the state:
//
//   - [New] keeps it in memory.
//   - [OpenDurable] also keeps it in a store.Storage, for one process.
//   - [OpenShared] keeps it in a store.Shared, for any number of Converters.
//
// Package d2c/store defines both interfaces, d2c/storetest checks an implementation, and d2c/store/redis is one.
//
// [Stats] and [Stream] describe the current state, and [Recovery] what OpenDurable found. [WithRoute] passes the [Route] by
// which a batch came, and [WithTenant] the tenant it belongs to. A [Notice] shows a sample of dropped points, and of
// problems that producers may not know about.
//
// # What becomes of a point
//
// A delta covers the half-open interval (start, time]. A start that is zero, or not before its time, is unknown. The state
// of a stream consists of a start, a last (end of the latest accepted interval), emitted (the latest time given out, never
// before last), the total, a fingerprint of the delta added last (interval and contents), and the remembered gaps: intervals
// before last that no accepted delta covers. A stream is new until it restarts. Well-formed points are classified in this
// order; W is [Config.LateWindow]:
//
//	no state                            first         start := p.start, or p.time if unknown; emitted at p.time
//	p.time > last
//	  p.start unknown                   no start      added
//	  p.start = last                    aligned       added
//	  p.start > last                    gap           added, the gap is remembered; GapRestart: restart
//	  p.start < start, stream is new    older start   dropped
//	  p.start < last                    overlap       added, gaps it covers close; OverlapDrop, OverlapInterpolate
//	p.time <= last
//	  fingerprint is the stream's       repeat        not added; the latest sample is emitted again, once per batch
//	  p.time = last                     covered       as a repeat, but nothing shows that it is one
//	  interval inside a remembered gap  late          added, the gap shrinks
//	  p.time <= start, stream is new,   before first  added, start := p.start, and the hole up to the old start becomes
//	    p.time >= last-W                              a gap; if p.start is unknown: only for p.time < start, start :=
//	                                                  p.time, no gap
//	  within (start, last], p.start >=  covered
//	    last-W, touches no gap
//	  otherwise                         too late      dropped
//
// A fingerprint has 24 bits (64 with many writers, see below), so one in 16 million covered points is mistaken for a repeat.
//
// A point with an unknown start and p.time < last is a repeat, before first, or too late, because it has no interval to
// compare.
//
// A producer sends nothing for an interval in which it counted nothing, so gaps are normal. Only a late delta shows that a
// gap was a loss. A stream remembers its latest four gaps, as far as they are less than W behind last. A delta that starts
// before the end of a gap that was forgotten for lack of room is too late, never covered.
//
// An accepted point with p.time > last is emitted at p.time. Late and before-first points are emitted one millisecond after
// emitted, and so is any point whose own time is not in a later millisecond than emitted (counted from the epoch). If the
// sample at emitted is in the same batch, the point takes its place and the other point is removed. As a result, the times
// of a stream's samples only rise, no two samples share a millisecond (the resolution at which Prometheus tells times
// apart), and samples run ahead of the input by at most one millisecond per batch.
//
// A restart begins a new total at p: start := max(p.start, emitted, start+1ns), without p.start if that is unknown. The
// stream is no longer new and has no gaps. Apart from GapRestart, a restart happens when histogram bounds change and when a
// total would overflow (an int64 or uint64 would wrap, a float64 would become infinite). It needs p.time > last: a late or
// before-first point that cannot be added for such a reason is too late.
//
// # Lives
//
// When a stream has expired, or an earlier process held it, its next point opens it again. If its producer never moves the
// start, the stream would get its old start back with a lower value. To prevent that, a stream opens with start := p.time,
// and is not new, if its first point starts before the latest time given out for any expired stream, or spans the moment
// this process began. Deltas missing from before that point may still arrive; they are late, as if they filled a gap. A
// before-first point that reaches back that far leaves the start unchanged. A first point that ends before the process began
// counts as a replay and opens its stream in the usual way: deltas that a producer held back while a process without stored
// state restarted may appear under the old start.
//
// # Values
//
// A stream that has seen a double stays double until it restarts. Histogram sum, min and max are kept as long as every delta
// that counts anything carries them. A delta that counts nothing does not change a stream's bounds, scale, zero threshold,
// sum, min or max; if the stream has counted nothing either, it takes those of the delta. The scale of an exponential
// histogram describes its buckets, and the zero threshold its zero count: without these they carry no information.
// Exponential histograms keep at most 160 buckets per sign; the scale is reduced only as far as that requires, exactly. A
// "no recorded value" point is never added and never opens a stream. It is forwarded under the stream's start, at a time
// chosen as for a delta; if p.time <= last it is too late.
//
// Summaries are not added up unless [Config.Summaries] names their metric. If it does, they are treated as histograms
// without buckets: count and sum are added up by all of these rules. Quantiles stay with the sample of their delta. A
// covered point therefore has none, and neither does a repeat with many writers, because the sample emitted again belongs to
// other quantiles.
//
// Malformed deltas whose meaning is clear are repaired: see [Repairs].
//
// Points of one stream within a batch are processed, and emitted, in order of time. If a batch already contains the sample
// that answers a repeat or covered point, that point is removed. Histogram samples that are not the last of their stream in
// a batch are removed with their points if all of them together would be much larger than the input. The size of the output
// is therefore bounded by the size of the input plus one latest sample for each stream touched.
//
// # Many writers
//
// With [WritersMany] intervals do not order deltas. A delta is a repeat if its fingerprint matches that of a delta counted
// at most W ago, by the clock (with [IdenticalAdd] it is added instead); any other delta is added (unordered). Identical
// points in one batch form a multiset: each occurrence is remembered, and if a later batch has more of them, only the excess
// is new. A stream remembers its latest 768 to 1536 deltas, at 18 to 120 bytes each and at most 40 KiB in all. If more
// arrive within W, an older delta that comes again is added again, and so is a whole batch with more deltas of one stream
// than that. Sample times are chosen as above. The start is that of the first point, and the total is everything accepted
// since, whatever its interval.
//
// # Aggregation
//
// With [Config.Aggregate] many streams become one: for the metrics that a rule matches, it removes attributes of the
// resource, the scope and the points. Streams with the same remaining attributes and the same name, unit, type and monotonic
// flag are the writers of one total. Each writer has its own timeline, by which its points are classified like those of any
// stream. Whatever is new is added to the total in any order, as with many writers. Each delta therefore counts once,
// whoever sends it again and however late, and the total is the sum of everything accepted. Outcomes describe the writers,
// and restarts the total. Gauges and summaries pass.
//
//   - A batch emits one sample of each total it touches, in place of the point added last; the other points are removed. The
//     start is that of the total's first point. With [AggregateRule].Interval, [Converter.EmitTotals] emits the samples
//     instead. Whatever is not part of the identity (description, schema URL, exemplars) comes from the point that the
//     sample replaces.
//   - Points may also be cumulative. The increase over the writer's latest point is added. A point that begins at or after
//     the time of that one, or is lower in some part, comes from a producer that has restarted, and is added whole (reset).
//     The first point is added whole if its start is known and nobody can have counted it before. Otherwise nothing of it is
//     added (baseline). That is the case if the point began before this process and the total began after the process did,
//     because another process may have counted it, under other rules or with state that is gone. Min and max of cumulative
//     histograms are left out.
//   - A writer that is quiet for MaxStale is forgotten; what it counted stays in the total. An unknown writer's points from
//     before the latest time of the total's forgotten writers are too late, because they may have been counted already. With
//     shared state, that limit is MaxStale before now, except for points at least six hours older than that, which are
//     replays. The store must therefore keep records for at least MaxStale.
//   - AggregateRule.MaxWriters bounds the writers of a total. MaxStreams bounds totals and writers together.
//   - A "no recorded value" point of a writer is removed, because the other writers continue.
//   - GapRestart does not apply to totals, because only writers have gaps. With GapRestartIfMoved a total restarts at its
//     first point after it may have been elsewhere, aligned or not.
//   - A total and its writers are stored as one unit. If a shared store has lost a total, the total restarts like any
//     stream; what the store lost of a writer is replaced by what this Converter knows. Config.Aggregate cannot be combined
//     with SharedConfig.MaxOutstanding.
//   - The rule is part of the identity. If its attributes change, new totals begin, under starts of their own and without
//     the values of the old ones. If only its Metrics change, totals continue.
//
// The writers of a histogram need the same bounds: a point with different bounds restarts the total, and so does the next
// point with the old ones. Each batch moves the time of a total forward by at least a millisecond. If more than a thousand
// batches a second have points of one total, set an Interval.
//
// Batches converted concurrently may contain samples of the same total and may be sent on in a different order than they
// were converted. The next component must tolerate that, or drop samples that are not later than the previous one; nothing
// is lost, because each sample includes all earlier ones.
//
// # Zeros and re-emission
//
// A backend that knows a series only by its samples cannot see what the first sample counts: increase() and rate() cover
// only what comes after it. With [Config.EmitZero] each life of a monotonic sum or a histogram, whether opened by first or
// by a restart, begins with one extra sample of value zero, under the life's start and before the first sample. Its time is
// the start, if the start is in a later millisecond than anything given out before (or possibly given out, before this
// process began or for expired streams), in an earlier millisecond than the first sample, and at most five minutes before
// it. The limit exists because backends refuse old samples (Prometheus after an hour) together with everything sent with
// them. Otherwise the zero comes one millisecond before the first sample, if that millisecond is free in the same sense and
// not before the start. Otherwise there is no zero. An unknown start is set to the time of the zero. A zero comes once: a
// repeated delta brings none, because the backend may already have the first sample, and nothing older may follow it. Zeros
// are off by default. Leave them off for backends that create zeros from start timestamps: Prometheus with
// created-timestamp-zero-ingestion, and Mimir.
//
// rate() also lacks points for a counter that rarely changes. With [Config.ReemitInterval], [Converter.Reemit] emits the
// latest sample of quiet streams again, with the same start and total, at the current time. In every mode emitted advances
// before the sample is given out, so the stream's next sample is later. Re-emission does not keep a stream from expiring.
// [Converter.MarkStale] emits a "no recorded value" point for streams that are about to expire.
//
// # Durable state
//
// [New] keeps the state in memory. [OpenDurable] also keeps it in a store.Storage: a batch is applied to copies of its
// streams, the changes are stored, and only then do the copies replace the streams and Convert returns. Everything given out
// is therefore in storage, and a new process continues where the previous one ended, even if that was killed: same starts,
// same totals, and repeated batches are recognised.
//
// If something in storage cannot be read, the streams it may concern are forgotten. Their next points open them as first
// does, with start := max(start, floor), where floor is not before the latest time given out. A point with p.time <= floor
// is too late, and so is a before-first point with p.start < floor (if the start is unknown, p.time <= floor).
//
// # Shared state
//
// [OpenShared] keeps the state in a store.Shared that any number of Converters use together; their own tables are caches. A
// batch is applied to copies of the cached streams, and a copy replaces the stored record only if that record is the cached
// one. If it is not, another Converter has changed the stream, and the same points are applied to the stored record, and so
// on. If the cache makes a point a repeat, too late or a marker, that is confirmed with the store in the same way before the
// point is given out or dropped, so a stale cache never decides.
//
// A store may lose everything (it is wiped, or a new server takes its place). Then its life ends, and the first Converter
// that finds it without a life begins the next, with the current time as its floor. A stream without a record in the new
// life opens as above, with start := max(start, floor), and points that end at or before floor are too late. Nothing is
// counted twice, whoever gets the retry.
//
// A store may also lose a single record, or go back to an older one. A Converter that knows the stream notices: there is no
// record, or one with an earlier emitted, or one with the same start and a lower total that must not fall. Then the stream
// restarts at the first point with p.time > emitted, with start := max(p.start, emitted, start+1ns) (restart_lost); points
// up to emitted are too late. The values of emitted and start are the later of the cached and the stored ones. A Converter
// that does not know the stream cannot tell, so a store must not evict records.
//
// There is one exception: gateways route each stream to one Converter and say so (see [WithRoute]), the route has not
// changed since the Converter last counted the stream, and a point has p.start = last. Then nobody else can have changed the
// stream in between, so the cached copy is stored and the stream continues. A gateway that reports having begun to use its
// ring later than that counts as a change, because another ring may have been in use in between.
//
// The rules follow the OpenTelemetry metrics data model (Temporality; Resets and Gaps; Overlap; Stream Manipulations).
package d2c
