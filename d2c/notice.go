// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"github.com/deltaring/deltaring/d2c/internal/alike"
	"github.com/deltaring/deltaring/d2c/internal/commit"
)

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

// Duplicates says what a backend makes labels of, besides the attributes of points. A backend like Prometheus knows labels only.
// It writes names with underscores and values as text, and has no empty values, so that 200 and "200", http.route and http_route, ""
// and nothing are the same to it. Streams that differ by no more are one series there, in which their samples take turns, and no
// one counts what is lost.
//
// Looked at are streams when they are opened, in memory by the Converter that opens them, and compared with the latest million
// that were. So the streams that durable or shared state brings along are not among them, and a stream counts too that
// is opened after the other one has ended. Its text is the word that a configuration file uses.
type Duplicates = alike.Labels

const (
	// DuplicatesNone asks for nothing.
	DuplicatesNone = alike.None
	// DuplicatesService is for backends that make labels of the service's namespace, name and instance, and of nothing else of a
	// resource or scope: Prometheus by OTLP, unless told otherwise, and what remote write sends by default.
	DuplicatesService = alike.Service
	// DuplicatesResource is for backends that make labels of all of a resource and its scope.
	DuplicatesResource = alike.Resource
)
