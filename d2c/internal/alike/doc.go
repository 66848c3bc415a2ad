// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package alike finds streams that are several to the data model and one series to a backend that knows only labels: names are
// written with underscores, values as text, an empty value is none, and of a resource there may be no more than its service.
package alike
