// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"github.com/deltaring/deltaring/d2c/internal/alike"
	"github.com/deltaring/deltaring/d2c/internal/commit"
)

// Notice reports something about a batch that its sender may not know. Kind says what, Points how many points it concerns,
// and the other fields describe one of them. For NoticeOutcome, Outcome says what happened to the points. Resource, Scope,
// Metric and Attributes are those of the sample; they are read-only, and valid only until OnNotice returns. Start and Time
// are its interval as received. Stream is its stream after the batch, with a zero ID if the point is malformed, and a zero
// Last if there is no such stream.
type Notice = commit.Notice

// NoticeKind says what a Notice is about.
type NoticeKind = commit.NoticeKind

const (
	// NoticeOutcome is about points that were dropped, Kept or Covered: one for each such outcome.
	NoticeOutcome = commit.NoticeOutcome
	// NoticeUnspecified is about a metric with unspecified temporality, whose points have Passed. It has no attributes,
	// times or stream.
	NoticeUnspecified = commit.NoticeUnspecified
	// NoticeDuplicate is about streams of a metric that were opened although the backend takes each for the same series as
	// another: see Config.Duplicates.
	NoticeDuplicate = commit.NoticeDuplicate
	// NoticeFixedStart is about sums of which OverlapInterpolate added only a part, because they began where their stream
	// did. One such point is an ordinary overlap. A producer whose start never moves sends nothing else, and loses most of
	// what it counts.
	NoticeFixedStart = commit.NoticeFixedStart
)

// Duplicates says which labels a backend makes, besides those for the attributes of points. A backend like Prometheus knows
// only labels. It writes names with underscores and values as text, and has no empty values, so 200 and "200", http.route
// and http_route, and "" and nothing are the same to it. Streams that differ only in such ways are one series there, in
// which their samples alternate and part of the counts is lost unnoticed.
//
// A Converter checks the streams that it opens, and compares each with the latest million it has opened. Streams restored
// from durable or shared state are therefore not included, and a stream that is opened after the other one has ended also
// counts. The text form is the word used in a configuration file.
type Duplicates = alike.Labels

const (
	// DuplicatesNone turns the check off.
	DuplicatesNone = alike.None
	// DuplicatesService is for backends that make labels from the service's namespace, name and instance, and from nothing
	// else in a resource or scope: Prometheus over OTLP, unless configured otherwise, and remote write by default.
	DuplicatesService = alike.Service
	// DuplicatesResource is for backends that make labels from the whole resource and the scope.
	DuplicatesResource = alike.Resource
)
