// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package streamid answers one question: which stream does this data point belong to?
//
// A stream is defined as in the OpenTelemetry metrics data model: the points that share resource attributes; scope name,
// version and attributes; metric name, unit, type, monotonic flag and aggregation temporality; and point attributes. Of
// gives it a 128-bit [ID]. For a batch, hash what the points share only once:
//
//	resource := streamid.Seed(0).Resource(rm.Resource())
//	scope := resource.Scope(sm.Scope())
//	metric := scope.Metric(m)
//	id := metric.Point(dp.Attributes()) // for each point
//
// If several tenants may send the same streams and something else tells them apart, for instance a request header, begin
// with the [Tenant]:
//
//	tenant := streamid.Seed(0).Tenant(streamid.TenantKey{Name: "x-tenant", Values: []string{"acme"}})
//	resource := tenant.Resource(rm.Resource()) // and so on
//
// To merge streams that differ in some attributes, for instance those of the pods of a service, use [Rules], which say which
// attributes to remove. A [Reduction] computes the identity of the remaining stream, and those of its writers, which are the
// original streams.
//
// For fleets in which each stream has one owner, a [Splitter] splits batches of metrics, traces or logs by the owner of
// their routing [Key], as contrib's load_balancing exporter does, but without copying points. Use [Key.Grouped] if owners
// keep whole groups of streams.
//
// # What is guaranteed
//
// Two points of the same stream have the same ID, whatever the order of attributes at any depth, on every platform, in every
// process, and in every version of this package that has encoding v1. Points of different streams have different IDs except
// by chance: among a billion streams the odds of a single collision are below 1 in 10^20.
//
// The same holds for remaining streams: two points have the same ID if the same attributes remain and the same Reduction
// removed the others. Their writers are told apart by 64 bits; [Reduction.Points] says how well.
//
// Schema URLs, description, metadata, timestamps, flags, exemplars, values, histogram bounds and dropped-attribute counts
// are not part of the identity. Attributes are taken as sent, as a multiset of pairs: an empty value is not a missing key,
// the integer 1 is neither the double 1 nor the string "1", and a key given twice counts twice. Strings are compared as
// bytes, without Unicode normalization. All NaNs are one value; 0 and -0 are two.
//
// All functions are safe for concurrent use as long as nobody writes to the data meanwhile. They neither change nor keep
// their arguments.
//
// # Cost
//
// On a server core of the 2020s a point costs about 12 ns and another 11 ns per short string attribute; the other steps cost
// about the same. Megabyte values are hashed at tens of gigabytes per second as strings, and at one or two as byte slices,
// which pdata returns byte by byte. Nothing allocates, except a byte slice of more than 1024 bytes: 192 bytes each. Maps and
// slices are followed by recursion, so the stack grows with the depth of nesting.
//
// A split by stream takes twice the time of the hashes with ten owners, and the time of the hashes with one. A split by
// resource, service or metric name does not look at points at all. It allocates eight times per part, however many points
// there are, and once more for each further type of metric in the part. To do so, it relies on the fields of the types
// behind pdata, which it looks up once per process: [SplitsInPlace] is true if they are those of v1.66 to v1.71, in any
// order. If they differ, or with the build tag purego, it uses the exported methods of pdata, in more than twice the time
// and with five allocations per point with ten owners.
//
// # Caveats
//
// XXH3 is not a cryptographic hash. Whoever chooses attributes and knows the seed can construct two streams with one ID. If
// strangers choose attributes, use a random secret [Seed] and do not publish IDs: that makes it harder, not impossible. All
// processes that exchange IDs must use the same seed, for as long as IDs are stored, because another seed gives all streams
// other IDs.
//
// # Encoding v1
//
// This section is complete: with it and an XXH3 library the IDs can be computed in any language, and testdata/v1.json and
// testdata/reductions-v1.json contain vectors to check the result. It will not change; if another encoding is ever needed,
// it will have another name.
//
// Notation. H(bytes, seed) is XXH3-128 with a 64-bit seed and the default secret, a pair of 64-bit numbers {Hi, Lo} (high
// and low half of the canonical 128-bit result). Integers are unsigned and wrap; those in hashed bytes are little-endian,
// 8 bytes each unless said otherwise; a pair is written as Hi, then Lo. | concatenates. G is 0x9E3779B97F4A7C15.
//
// A value v under a seed s is hashed with a seed t that depends on its type, and t is mixed into the result:
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
// Attributes, the entries of a map, are a multiset; each is hashed separately and the results are added:
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
// A tenant is a map of attributes, too: each name that has any values maps to the slice of these values, which are strings.
// For a tenant with at least one such name the first step is different; without a tenant nothing changes.
//
//	resource = H(sum(attributes, S) | sum(tenant, S), S + 16*G)                                      48 bytes
//
// type is one byte: 0 none, 1 gauge, 2 sum, 3 histogram, 4 exponential histogram, 5 summary. monotonic is one byte: 1 for
// a monotonic sum, otherwise 0. temporality is one byte: 0 unspecified or not applicable, 1 delta, 2 cumulative, 255 any
// other number.
//
// A reduction is a map of attributes, too: the keys "resource", "scope" and "attributes" (of the point), as far as something
// is selected there, map to a slice of strings: "drop" or "keep", followed by the names, sorted by their bytes. Its hash has
// no seed but its tag:
//
//	reduction = H(sum(reduction, 17*G), 17*G)                                                        24 bytes
//
// For the remaining stream the first step is different. It includes the tenant's sum even if that is empty, as three zeros.
// The other steps are those above, with the remaining attributes and with 0 for the temporality:
//
//	resource = H(sum(attributes left, S) | sum(tenant, S) | reduction, S + 18*G)                     64 bytes
//
// A writer is the original stream, with its own metric and attributes. It shares one half of the remaining stream's ID:
//
//	writer   = {ID.Hi, fold(H(metric.Hi | (metric.Lo xor ID.Lo) | sum(attributes, S), S + 19*G))}    40 bytes
//
// Routing keys are 64 bits of a hash, fold(h) = h.Hi xor (h.Lo rotated by 32), with h from this table; vectors are in
// testdata/keys-v1.json:
//
//	streamID    ID
//	aggregate   ID of the remaining stream, by the first rule with a pattern that matches the name; ID if there is none
//	metric      H(name, S + 13*G)
//	resource    resource
//	traceID     H(the 16 bytes, S + 14*G)
//	attributes  H(sum(a map of those of the attributes that were found, S), S + 15*G)
//	service     as attributes, with service.name in the resource as the only one
//
// Grouped, the keys streamID and aggregate are h.Hi instead of fold(h).
//
// An attribute is found at the first of resource, scope and point that has it with a value that is neither empty nor an
// empty string; of a key given twice, the first counts. Fields of spans and log records that are looked up like attributes
// are strings, except that log.body is the value of the body. If no attribute is found, or if the trace ID is zero, h is
// resource. A tenant counts only in IDs: for the other keys the resource is hashed without it.
//
// Rationale: adding needs no sorting and no memory, and equal pairs do not cancel as they would under xor. Hashing key and
// value separately needs no copy. A hash of 4 to 8 bytes has a state of 64 bits, so two of them under different seeds can be
// equal in all 128; k.Hi and t in the result keep short values apart from those of another key or type. The seeds of the
// steps, and lengths that are fixed once strings are hashed, keep every field from being taken for another. Routing keys
// combine both halves of a hash, crosswise, so that the IDs of one owner, whose routing keys have their high bits in common,
// still differ in all bits of either half. Grouped keys give that up: the IDs of one owner share some of the high bits of
// Hi.
package streamid
