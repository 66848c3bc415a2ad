// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package table keeps streams in memory, 48 bytes for each and few pointers, and reads and writes them as records.
package table
