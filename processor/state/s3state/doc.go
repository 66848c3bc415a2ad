// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:generate go run generate.go

// Package s3state is the Collector extension "s3_state": it keeps the state that several d2c processors share in a bucket of S3, or of a
// compatible store, so that no server has to run for it.
//
// The logs are those of package d2c/store/s3. Here is what makes it a component: configuration, TLS, credentials, lifecycle and telemetry.
package s3state
