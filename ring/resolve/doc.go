// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package resolve follows who the members of a ring are.
//
// A [Source] finds members: [Static] lists them, [DNS] asks for them, and the modules k8s and cloudmap below this
// package, which are heavy, watch the EndpointSlices of a Service and ask AWS Cloud Map. A [Resolver] follows a source and
// has complete lists applied, with the same care whatever the source: a change must last before it counts, a lookup that
// fails or finds nobody changes nothing, too many members are refused, and what is refused is offered again.
//
//	r := resolve.Resolver{Source: &resolve.DNS{Hostname: "workers", Timeout: time.Second}, Interval: 5 * time.Second,
//		Debounce: 5 * time.Second, MaxMembers: 1000}
//	r.Follow(ctx, func(members []resolve.Member) error { return publish(members) }, func(resolve.Report) {})
//
// Lists are in the order of names and hold each name once, so two processes that are told the same make the same ring of it.
package resolve
