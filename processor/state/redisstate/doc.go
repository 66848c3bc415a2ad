// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:generate go run generate.go

// Package redisstate is the Collector extension "redis_state": it keeps the state that several d2c processors share, on
// Redis or Valkey, as one server, behind Sentinel, or as a Cluster.
//
// The store is package d2c/store/redis. Here is what makes it a component: configuration, TLS, lifecycle, status and telemetry.
package redisstate
