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
// There are few: a [Converter] takes batches, as a [Config] says, and a [Result] counts their points by [Outcome]. [New]
// keeps the state in memory, [OpenDurable] in a store.Storage of one process, [OpenShared] in a store.Shared that any number
// of Converters have in common: package d2c/store says what these must do, d2c/storetest checks one, and d2c/store/redis is
// one. [Stats] and [Stream] say what there is, [Recovery] what OpenDurable has found, [Route] by which ring a batch came, and
// [WithTenant] whose it is. A [Notice] has a sample of what was dropped, and of what producers may not know.
//
// # What becomes of a point
//
// A delta covers the half-open interval (start, time]. A start of zero, or not before its time, is unknown. A stream's state
// has a start, a last (end of the latest accepted interval), emitted (the latest time given out, never before last), the
// total, a fingerprint of the delta that was added last (interval and contents), and the remembered gaps: intervals before last
// that no accepted delta has covered. It is new until it restarts. Well-formed points are classified in this order; W is
// [Config.LateWindow]:
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
// A fingerprint has 24 bits (64 where there are many writers, see below): of 16 million covered points one is told to be a repeat.
//
// A point with an unknown start and p.time < last is a repeat, before first, or too late: it has no interval to compare.
//
// A producer sends nothing for an interval in which it has counted nothing, so that a gap is normal. That it was a loss only a
// late delta shows. The latest four gaps of a stream are kept, and of these what is less than W behind last; what starts before
// the end of a gap forgotten for want of room is too late, never covered.
//
// An accepted point with p.time > last is emitted at p.time; late and before-first points one millisecond after emitted,
// and so is any point whose own time is not in a later millisecond than emitted (counted from the epoch). Where the sample at
// emitted is of the same batch the point takes its place, and the other point is removed. So the time of a stream's samples
// only rises, no two of them share a millisecond, which is as fine as Prometheus tells times apart, and they run ahead of what
// came in by no more than a millisecond per batch.
//
// A restart begins a new total at p: start := max(p.start, emitted, start+1ns), without p.start if that is unknown; the
// stream is no longer new and has no gaps. Apart from GapRestart, it happens when histogram bounds change and when a
// total would overflow (an int64 or uint64 wrap, a float64 become infinite). It needs p.time > last: a late or
// before-first point that cannot be added for such a reason is too late.
//
// # Lives
//
// A stream that is forgotten, or was with a process before this one, is opened anew by its next point. If its producer's start
// never moves that would be the start of before, under a lower value. So a stream whose first point starts before the latest time
// given out of any stream that has expired, or reaches from before this process to after it began, opens with start := p.time and
// is not new. What is missing from before the point may still come, as from a gap, and is late then; a before-first point that
// reaches back so leaves the start where it is. A first point that ends before the process began is taken for a replay, and
// opens its stream as any other does: what a producer kept back while a process without state restarted may come under the
// start of before.
//
// # Values
//
// A stream that has seen a double continues as double until it restarts. Histogram sum, min and max are kept while every
// delta that counts anything has them. A delta that counts nothing changes nothing: not the bounds of a stream, nor its scale,
// zero threshold, sum, min or max; where the stream has counted nothing, it is the delta's that are taken. An exponential
// histogram's scale is of its buckets and its zero threshold of its zero count: without these they say nothing. Exponential
// histograms keep at most 160 buckets per sign; scale is reduced as far as that needs, exactly. A "no recorded value" point is
// never added and never opens a stream: it is forwarded under the stream's start, at a time found in the same way as for a
// delta, unless p.time <= last, which is too late.
//
// Summaries are not added up unless [Config.Summaries] names their metric. Then they are histograms without buckets: count and
// sum are added up by all of these rules. Quantiles stay with the sample of their delta, so a covered point has none, nor has a
// repeat of many writers: the sample that is given out once more had others.
//
// Deltas that are malformed and yet say what they mean are repaired: see [Repairs].
//
// Points of one stream within a batch are taken in the order of their times, and given out in it. A repeat or covered point
// whose answer is in the batch already gets no sample of its own, and its point is removed. Histogram samples that are not the
// last of their stream in a batch are left out, and their points removed, where all of these together would be much larger than
// the batch that came in: so what a batch turns into is bounded by what it holds, and one latest sample of each stream that it
// touches.
//
// # Many writers
//
// With [WritersMany] intervals order nothing. A delta whose fingerprint is that of one which was counted no more than W ago, by
// the clock, is a repeat, or added with [IdenticalAdd]; any other is added (unordered). Identical points of one batch are a
// multiset: the first, the second and so on are remembered each for itself, so of those in a later batch as many are new as there
// are more. A stream remembers its latest 768 to 1536 deltas, with 18 to 120 bytes each and at most 40 KiB in all; where it has
// more within W, an older one that comes again is added again, and so is a whole batch that has more of one stream. Samples get
// their times as above, and start is that of the first point: the total is of all that was accepted since, whatever its interval.
//
// # Aggregation
//
// With [Config.Aggregate] one stream is made of many: of the metrics that a rule matches attributes are taken away, of the resource, the
// scope and the points. Streams that have the same ones left, and name, unit, type and monotonic flag in common, are the writers of one
// total. Each writer has a timeline, by which its points are classified as those of any stream are; what is new is added to the total, which
// asks for no order, as that of many writers. So each delta counts once, whoever sends it again and however late, and the total is the sum of
// all that was accepted. Outcomes are those of the writers, and restarts those of the total. Gauges, and summaries, pass.
//
//   - A batch gives out one sample of each total that it touches, in the place of the point that was added last; the other points are
//     removed. Start is that of the first point of the total. With [AggregateRule].Interval samples come from [Converter.EmitTotals]
//     instead. What is not part of the identity, like description, schema URL and exemplars, is that of the point whose place it is.
//   - Points may be cumulative, too. What one holds beyond the latest of its writer is added; one that begins at or after that one's time,
//     or holds less in some part, is of a producer that has begun anew, and added whole (reset). The first one is added whole if its start is
//     known, and nobody can have counted it before; else nothing of it is added (baseline). So it is where it began before this process and
//     the total after that: another process may have counted it, under other rules, or with state that is gone. Min and max of cumulative histograms are of no interval, and left out.
//   - A writer that is quiet for MaxStale is forgotten; what it has counted stays. A writer that is not known takes nothing from before the
//     latest time of those of its total that are forgotten (too late): it may have been counted. With shared state it is
//     MaxStale before now up to which what is not known may have been counted, unless it is older by six hours, as a replay is.
//     So the store must keep records for MaxStale at least.
//   - AggregateRule.MaxWriters bounds the writers of a total, and MaxStreams totals and writers together.
//   - A "no recorded value" point of a writer is removed: the others go on.
//   - GapRestart says nothing of a total: a gap is one of a writer. With GapRestartIfMoved a total begins anew at its first
//     point after it may have been elsewhere, aligned or not.
//   - A total and its writers are stored as one unit. If a shared store has lost a total it begins anew, as any stream does, and what it
//     has lost of a writer is what this Converter knows. Config.Aggregate does not go with SharedConfig.MaxOutstanding.
//   - The rule is part of the identity. With other rules totals begin anew, under a start of their own, and nothing of the old ones is in
//     them; with other Metrics alone they go on.
//
// Writers of a histogram need the same bounds: a point with others restarts the total, and the next one does again. Each batch moves the time
// of a total on by a millisecond at least; where more than a thousand batches a second have points of one total, use an Interval.
//
// Batches that are converted at the same time may have samples of one total, and be given out in another order than they were
// converted in: whoever is next must not mind, or leave out what is not later than what came before, as each sample holds all that the earlier ones do.
//
// # Zeros and re-emission
//
// A backend that knows a series by its samples alone does not see what the first of them says: increase() and rate() are about what
// comes after it. With [Config.EmitZero] each life of a monotonic sum or a histogram, after first as after a restart, begins
// with one more sample of value zero, under the life's start and just before the first sample: at the start, if that is in a later
// millisecond than what was given out before (or may have been, before this process began or of streams that have expired), in an
// earlier one than the first sample, and no more than five minutes before it, as backends refuse what is old (Prometheus after an
// hour) and all that comes with it; else one millisecond before the first sample, if that is free in the same way and not before the start; else there is none. A start that is
// unknown is put where the zero is. A zero comes once: a delta that comes again brings none, because the first sample may be at
// the backend, and nothing older is to follow it. Zeros are off by default, and not for backends
// that make zeros themselves from start timestamps: Prometheus with created-timestamp-zero-ingestion, Mimir.
//
// Nor has rate() any points of a counter that is counted seldom. With [Config.ReemitInterval], [Converter.Reemit] gives out the
// latest sample of quiet streams again: same start and total, at the time of now. So emitted moves on, in all modes before the sample is
// given out, and what comes next of the stream is later. It does not keep a stream from expiring; [Converter.MarkStale] gives out
// a "no recorded value" point of those that are about to.
//
// # Durable state
//
// [New] keeps the state in memory. [OpenDurable] keeps it in a store.Storage too: a batch is folded onto copies of its streams, what has
// changed is stored, and only then do the copies take the place of the streams and does Convert return. So whatever was
// given out is in storage, and a process that begins with what another left, killed or not, goes on where that one ended:
// same starts, same totals, and a batch that comes again is recognised.
//
// Where something in storage cannot be read, streams it may have concerned are forgotten. They begin anew as first does,
// with start := max(start, floor), where floor is not before the latest time given out: a point with p.time <= floor is too
// late, and so is one that would be before first with p.start < floor (if unknown, p.time <= floor).
//
// # Shared state
//
// [OpenShared] keeps the state in a store.Shared that any number of Converters have in common; their tables are caches. A batch
// is folded onto copies of what the cache has, and each copy takes the place of the stored record only if that is the one
// which the cache has. Where it is not, another Converter has changed the stream: the same points are folded onto what is
// stored, and so on. What the cache makes a repeat, too late or a marker is confirmed in the same way before it is given out
// or dropped: a stale cache does not speak.
//
// A store may lose what it holds. As a whole (it is wiped, a new server takes its place): then its life ends, and the first who
// finds it without one begins the next, with the time of that moment as its floor. A stream that has no record in the new
// life begins anew, as above: with start := max(start, floor), and what ends up to floor is too late. So nothing that was
// counted counts again, whoever gets the retry.
//
// Or the record of one stream is gone, or goes back: a Converter notices if it knows the stream. There is no record, one with an
// earlier emitted, or one with the same start and a total that is lower though it must not fall. Then, too, the stream
// begins anew at the first point with p.time > emitted, with start := max(p.start, emitted, start+1ns) (restart_lost); points
// up to emitted are too late. emitted and start are the later ones of what the cache and the record have. A Converter that
// does not know the stream cannot tell: a store must not evict.
//
// There is one exception. Where gateways route each stream to one Converter and say so (see [WithRoute]), the route has not
// changed since the Converter last counted the stream, and a point has p.start = last, nobody else can have changed it since: the
// cache's copy is stored, and the stream goes on. A gateway that has begun to use its ring later than that, by its own word, is
// a change: the ring may have been another one in between, and have come back.
//
// The rules follow the OpenTelemetry metrics data model (Temporality; Resets and Gaps; Overlap; Stream Manipulations).
package d2c
