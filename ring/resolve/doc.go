// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package resolve keeps track of the members of a ring.
//
// A [Source] finds members: [Static] lists them, [DNS] looks them up. The modules k8s and cloudmap below this package have
// heavy dependencies; they watch the EndpointSlices of a Service and query AWS Cloud Map. A [Resolver] follows a source and
// applies complete lists, with the same care for every source: a change must last before it is applied, a lookup that fails
// or finds nobody changes nothing, too many members are refused, and a refused list is offered again.
//
//	r := resolve.Resolver{Source: &resolve.DNS{Hostname: "workers", Timeout: time.Second}, Interval: 5 * time.Second,
//		Debounce: 5 * time.Second, MaxMembers: 1000}
//	r.Follow(ctx, func(members []resolve.Member) error { return publish(members) }, func(resolve.Report) {})
//
// Lists are sorted by name and contain each name once, so two processes that find the same members build the same ring.
package resolve
