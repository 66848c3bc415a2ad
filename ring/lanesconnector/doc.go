// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:generate go run generate.go

// Package lanesconnector is the Collector connector "lanes": the last place before an exporter. It sends metrics, traces and
// logs on in parallel and yet keeps each stream in order.
//
// A batch is split by a routing key among lanes, so that a stream is in one of them. A lane has one request under way; what
// comes meanwhile waits, and goes in one request when that is done. Retries stay in the lane. So a backend that takes 100 ms for
// a request has as many at once as there are lanes, each as large as what has come in that time, and never two of one stream.
//
// A lane is also a guard: it knows of each stream the time of the latest sample that was taken, and drops what is not later,
// because there are backends that refuse a whole request for one such sample.
//
// How the pieces fit: the connector splits, a lane has what waits and forms requests, a delivery sends one with its retries and
// takes apart what is refused, the guard has the latest samples. Queues are exporterhelper's, one in front of each lane.
package lanesconnector
