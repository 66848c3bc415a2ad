// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package fold adds deltas to the totals of streams: it says what becomes of a point, and what of the total. It knows neither
// the data model's messages nor where streams are kept.
package fold
