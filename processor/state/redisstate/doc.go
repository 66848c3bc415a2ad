// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:generate go run generate.go

// Package redisstate is the Collector extension "redis_state": it keeps the state that several d2c processors share, on
// Redis or Valkey, as one server, behind Sentinel, or as a Cluster.
//
// How the pieces fit: a [d2c.SharedStore] is handed out to each processor, a batch becomes one call of a script for each
// slot group (or one for all, where there is one server), the calls for one server go out together, and what a server does
// not take for a reason that may pass is sent again, up to a bound. Everything else is an error, and the batch is refused.
package redisstate
