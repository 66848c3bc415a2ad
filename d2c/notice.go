// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import "github.com/deltaring/deltaring/d2c/internal/commit"

// Notice is something about a batch that its sender may not know, of some NoticeKind: how many Points it is about, and a sample
// of these. Of NoticeOutcome, Outcome says what became of them. Resource, Scope, Metric and Attributes are those of the sample,
// which may only be read, and only until OnNotice returns; Start and Time are its interval as it came, and Stream is its stream
// after the batch, with a zero ID if the point is malformed, and a zero Last if there is no such stream.
type Notice = commit.Notice

// NoticeKind says what a Notice is about.
type NoticeKind = commit.NoticeKind

const (
	// NoticeOutcome is about points that were dropped, Kept or Covered: one for each such outcome.
	NoticeOutcome = commit.NoticeOutcome
	// NoticeUnspecified is about a metric that does not say whether its points are deltas: they have Passed. It has no attributes,
	// times and stream.
	NoticeUnspecified = commit.NoticeUnspecified
	// NoticeDuplicate is about streams of a metric that were opened though the backend takes each for one with another: see
	// Config.Duplicates.
	NoticeDuplicate = commit.NoticeDuplicate
	// NoticeFixedStart is about sums of which OverlapInterpolate has added a part, because they began where their stream did. One
	// such point is an overlap like others. A producer whose start never moves sends nothing else, and loses most of what it counts.
	NoticeFixedStart = commit.NoticeFixedStart
)
