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
// [WithTenant] whose it is.
//
// # What becomes of a point
//
// A delta covers the half-open interval (start, time]. A start of zero, or equal to time, is unknown. A stream's state
// has a start, a last (end of the latest accepted interval), emitted (the latest time given out, never before last), the
// total, and the remembered gaps: intervals between start and last that no accepted delta has covered. It is new until
// it restarts. Well-formed points are classified in this order; W is [Config.LateWindow]:
//
//	no state                            first         start := p.start, or p.time if unknown; emitted at p.time
//	p.time = last                       repeat        not added; the latest sample is emitted again, once per batch
//	p.time > last
//	  p.start unknown                   no start      added
//	  p.start = last                    aligned       added
//	  p.start > last                    gap           added, the gap is remembered; GapRestart: restart
//	  start <= p.start < last           overlap       added, gaps it covers close; OverlapDrop, OverlapInterpolate
//	  p.start < start                   older start   dropped
//	p.time < last
//	  interval inside a remembered gap  late          added, the gap shrinks
//	  p.time <= start, stream is new,   before first  added, start := p.start, and the hole up to the old start becomes
//	    p.time >= last-W                              a gap; if p.start is unknown: only for p.time < start, start :=
//	                                                  p.time, no gap
//	  within (start, last], p.start >=  repeat        not added; the latest sample is emitted again
//	    last-W, touches no gap
//	  otherwise                         too late      dropped
//
// A point with an unknown start and p.time < last is either before first or too late: it has no interval to compare.
//
// An accepted point with p.time > last is emitted at p.time; late and before-first points one millisecond after emitted,
// and so is any point whose own time is not in a later millisecond than emitted (counted from the epoch). So the time of
// a stream's samples only rises and no two different values ever share a millisecond, which is as fine as Prometheus
// tells times apart. Gaps are forgotten once they end W or more behind last, and only the latest eight of a stream are
// kept; what starts before the end of a gap forgotten for want of room is too late, never a repeat.
//
// A restart begins a new total at p: start := max(p.start, emitted, start+1ns), without p.start if that is unknown; the
// stream is no longer new and has no gaps. Apart from GapRestart, it happens when histogram bounds change and when a
// total would overflow (an int64 or uint64 wrap, a float64 become infinite). It needs p.time > last: a late or
// before-first point that cannot be added for such a reason is too late.
//
// A stream that has seen a double continues as double until it restarts. Histogram sum, min and max are kept while every
// delta that counts anything has them; of a delta that counts nothing they are ignored. Exponential histograms keep at
// most 160 buckets per sign; scale is reduced as far as that needs, exactly. A "no recorded value" point is never added
// and never opens a stream: it is forwarded under the stream's start, at a time found in the same way as for a delta,
// unless p.time <= last, which is too late.
//
// Points of one stream within a batch are taken in the order of their times. A repeat whose answer is in the batch already
// gets no sample of its own, and its point is removed. Histogram samples that are not the last of their stream in a batch are
// left out, and their points removed, where all of these together would be much larger than the batch that came in: so what a
// batch turns into is bounded by what it holds, and one latest sample of each stream that it touches.
//
// # Zeros and re-emission
//
// A backend that knows a series by its samples alone does not see what the first of them says: increase() and rate() are about what
// comes after it. With [Config.EmitZero] each life of a monotonic sum or a histogram, after first as after a restart, begins
// with one more sample of value zero, under the life's start and just before the first sample: at the start, if that is in a later
// millisecond than what was given out before (or may have been, before this process began or of streams that have expired) and in an earlier one than the first sample;
// else one millisecond before that, if that is free in the same way and not before the start; else there is none. A start that is
// unknown is put where the zero is. A repeat of the life's only delta gives out the zero again, because the first export may have
// failed; if it has not, a backend that takes samples only in order refuses that zero. It is off by default, and not for backends
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
// cache's copy is stored, and the stream goes on.
//
// The rules follow the OpenTelemetry metrics data model (Temporality; Resets and Gaps; Overlap; Stream Manipulations).
package d2c
