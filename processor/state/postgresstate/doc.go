// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:generate go run generate.go

// Package postgresstate is the Collector extension "postgres_state": it keeps the state that several d2c processors share on PostgreSQL.
//
// The logs are those of package d2c/store/postgres. Here is what makes it a component: configuration, TLS, lifecycle and telemetry.
package postgresstate
