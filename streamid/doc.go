// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package streamid answers one question: which stream does this data point belong to?
//
// A stream is what the OpenTelemetry metrics data model calls by that name: the points that share resource attributes;
// scope name, version and attributes; metric name, unit, type, monotonic flag and aggregation temporality; and point
// attributes. Of gives it a 128-bit [ID]. For a batch, hash what the points share once:
//
//	resource := streamid.Seed(0).Resource(rm.Resource())
//	scope := resource.Scope(sm.Scope())
//	metric := scope.Metric(m)
//	id := metric.Point(dp.Attributes()) // for each point
//
// Where tenants may have the same streams and something else tells them apart, a header of their requests for instance, begin with
// the [Tenant]:
//
//	tenant := streamid.Seed(0).Tenant(streamid.TenantKey{Name: "x-tenant", Values: []string{"acme"}})
//	resource := tenant.Resource(rm.Resource()) // and so on
//
// Where streams are to become one although they differ in some attributes, of the pods of a service for instance, [Rules] say which
// attributes go. A [Reduction] has the identity of the stream that is left, and of its writers, which are the streams as they were.
//
// For fleets in which each stream has one owner, a [Splitter] splits whole batches of metrics, traces or logs by the owner of
// their routing [Key], as contrib's load_balancing exporter does, but without copying points. [Key.Grouped] is for owners that keep
// whole groups of streams.
//
// # What is guaranteed
//
// Two points have the same ID if they belong to the same stream, whatever the order of attributes at any depth, on every
// platform, in every process and every version of this package that has encoding v1. Two points of different streams
// have different IDs but for chance: among a billion streams the odds of a single collision are below 1 in 10^20.
//
// Of two points of which a stream is left the same holds: they have the same ID if what is left is the same, and what has left it.
// Their writers are told apart by 64 bits, [Reduction.Points] says how well.
//
// Not part of the identity are schema URLs, description, metadata, timestamps, flags, exemplars, values, histogram bounds,
// and dropped-attribute counts. Attributes are taken as the wire has them, a multiset of pairs: an empty value is not a
// missing key, the integer 1 is neither the double 1 nor the string "1", a key given twice counts twice. Strings are
// compared as bytes, without Unicode normalization. All NaNs are one value; 0 and -0 are two.
//
// All functions are safe for concurrent use as long as nobody writes to the data meanwhile. They neither change nor keep
// what they are given.
//
// # Cost
//
// On a server core of the 2020s a point costs about 12 ns and another 11 ns per short string attribute; the other steps cost
// the like. Megabytes pass at tens of gigabytes per second as a string and at one or two as a byte slice, which pdata gives
// out byte by byte. Nothing allocates, except a byte slice of more than 1024 bytes: 192 bytes each. Maps and slices are
// followed by recursion: the stack grows with the depth of nesting.
//
// A split by stream takes twice the time of the hashes with ten owners, and the time of the hashes with one; by resource,
// service or metric name it does not look at points at all. It allocates eight times per part, however many points there
// are, and once more for each further type of metric in it. For that it relies on the fields of the types behind pdata, after
// looking up all of them, once per process: [SplitsInPlace] is true if they are those of v1.66 to v1.71, in any order.
// Where they differ, and with the build tag purego, it does the same with the exported methods of pdata, in more than twice
// the time and with five allocations per point with ten owners.
//
// # Caveats
//
// XXH3 is not a cryptographic hash. Who chooses attributes and knows the seed can construct two streams with one ID. Where
// strangers choose attributes, use a random secret [Seed] and do not publish IDs: that makes it harder, not impossible.
// A seed must be the same in all processes that exchange IDs, and for as long as IDs are stored: another seed gives other
// IDs to all streams.
//
// # Encoding v1
//
// This section is complete: with it and an XXH3 library the IDs can be computed in any language, and testdata/v1.json and
// testdata/reductions-v1.json have vectors to check the result. It will not change; should another encoding ever be needed, it will have another name.
//
// Notation. H(bytes, seed) is XXH3-128 with a 64-bit seed and the default secret, a pair of 64-bit numbers {Hi, Lo} (high
// and low half of the canonical 128-bit result). Integers are unsigned and wrap; those in hashed bytes are little-endian,
// 8 bytes each unless said otherwise; a pair is written as Hi, then Lo. | concatenates. G is 0x9E3779B97F4A7C15.
//
// A value v under a seed s is hashed with a seed t that tells its type, and t is mixed into the result:
//
//	value(v, s) = {h.Hi xor t, h.Lo}  with t and h from this table
//
//	type     t        h
//	string   s + 1*G  H(the bytes, t)
//	bool     s + 2*G  H(one byte, 1 for true or 0 for false, t)
//	int      s + 3*G  H(two's complement, t)
//	double   s + 4*G  H(IEEE 754 bits, t); every NaN has bits 0x7FF8000000000001
//	map      s + 5*G  H(sum(v, t), t)
//	slice    s + 6*G  H(c, t), where c begins as {0, number of elements} and
//	                  becomes H(c | value(e, t), t) for each element e in order
//	bytes    s + 7*G  H(the bytes, t)
//	empty    s + 8*G  H(no bytes, t)
//
// Attributes, the entries of a map, are a multiset; each is hashed by itself and the results are added:
//
//	pair(key, v, s) = {w.Hi xor k.Hi, w.Lo}  with k = H(the bytes of key, s) and w = value(v, k.Lo)
//	sum(map, s)     = p | number of entries  with p the sum of pair(key, v, s) over all entries, modulo 2^128
//
// The steps, S being the seed:
//
//	resource = H(sum(attributes, S), S + 9*G)                                                        24 bytes
//	scope    = H(resource | H(name, S) | H(version, S) | sum(attributes, S), S + 10*G)               72 bytes
//	metric   = H(scope | H(name, S) | H(unit, S) | type | monotonic | temporality, S + 11*G)         51 bytes
//	ID       = H(metric | sum(attributes, S), S + 12*G)                                              40 bytes
//
// A tenant is attributes too: to each name that has any values, the slice of these, which are strings. Of a tenant with at
// least one of them the first step is another one; without a tenant nothing differs.
//
//	resource = H(sum(attributes, S) | sum(tenant, S), S + 16*G)                                      48 bytes
//
// type is one byte: 0 none, 1 gauge, 2 sum, 3 histogram, 4 exponential histogram, 5 summary. monotonic is one byte: 1 for
// a monotonic sum, otherwise 0. temporality is one byte: 0 unspecified or not applicable, 1 delta, 2 cumulative, 255 any
// other number.
//
// A reduction is attributes, too: to "resource", "scope" and "attributes" (of the point), as far as something is selected there, a
// slice of strings, which are "drop" or "keep" and then the names, sorted by their bytes. The hash of these has no seed but its
// tag:
//
//	reduction = H(sum(reduction, 17*G), 17*G)                                                        24 bytes
//
// Of the stream that is left the first step is another one, which has the tenant's sum in it also where that is empty, three zeros.
// The others are those above, of the attributes that are left, and with 0 for the temporality:
//
//	resource = H(sum(attributes left, S) | sum(tenant, S) | reduction, S + 18*G)                     64 bytes
//
// A writer is a stream as it was, with the metric and the attributes of that, and has a half of the ID of the stream that is left:
//
//	writer   = {ID.Hi, fold(H(metric.Hi | (metric.Lo xor ID.Lo) | sum(attributes, S), S + 19*G))}    40 bytes
//
// Routing keys are 64 bits of a hash, fold(h) = h.Hi xor (h.Lo rotated by 32), with h from this table; vectors are in
// testdata/keys-v1.json:
//
//	streamID    ID
//	aggregate   ID of the stream that is left, by the first rule with a pattern that matches the name; ID if there is none
//	metric      H(name, S + 13*G)
//	resource    resource
//	traceID     H(the 16 bytes, S + 14*G)
//	attributes  H(sum(a map of those of the attributes that were found, S), S + 15*G)
//	service     as attributes, with service.name in the resource as the only one
//
// Grouped, the keys streamID and aggregate are h.Hi instead of fold(h).
//
// An attribute is found at the first of resource, scope and point that has it with a value that is neither empty nor an empty
// string; of a key given twice, the first counts. Fields of spans and log records that are looked up like attributes are
// strings, or in case of log.body the value that the body is. If none is found, and if the trace ID is zero, h is resource.
// Only in IDs a tenant counts: the resource of the other keys is that without.
//
// Why so: adding needs no sorting and no memory, and equal pairs do not cancel as they would under xor. Hashing key and value
// apart needs no copy. A hash of 4 to 8 bytes has a state of 64 bits, and so two of them under different seeds can be
// equal in all 128; k.Hi and t in the result keep short values apart from those of another key or type. The seeds of the
// steps, and lengths that are fixed once strings are hashed, keep every field from being taken for another. Routing keys
// are made of both halves of a hash, crosswise, so that the IDs which one owner has, with routing keys that have their
// high bits in common, still differ in all bits of either half. Grouped keys give that up: the IDs of one owner have some of the
// high bits of Hi in common.
package streamid
