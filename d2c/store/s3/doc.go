// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package s3 keeps the logs of package log in an S3 bucket, or in a compatible store that supports PutObject with
// If-None-Match and If-Match and whose reads show the latest write.
//
//	client := awss3.NewFromConfig(cfg, s3.Tune)
//	driver, err := s3.New(client, s3.Options{Bucket: "metrics-state", Name: "d2c"})
//	...
//	logs, err := log.New(driver, log.Options{})
//
// The caller owns the client. [Tune] disables its retries, because the Driver retries by itself. The Collector's extension
// s3_state makes this package available by configuration.
//
// # How it works
//
// Each log has a head: an object that names a snapshot and segments, which are other objects, and contains the latest
// entries itself. To append, the owner replaces the head it knows by a new one, on condition that the known one is still
// there. That is one request, and the first writer wins. If the entries outgrow the head, they are first written as a
// segment. There are no clocks, leases or locks: a process that was stopped for a week resumes, tries to replace the head,
// and is refused.
//
// A request without an answer is sent again under the same condition. If that is refused, the Driver reads the head and
// looks for the entry by its ID. A [Driver] remembers the head of each log, so it reads nothing as long as nobody else
// appends.
//
// Before its first use of a store, a Driver tests it, and refuses one that ignores conditions. See [Driver.Probe].
//
// # Objects
//
//	<prefix>/<name>/<log>/head
//	<prefix>/<name>/<log>/<random>.segment
//	<prefix>/<name>/<log>/<random>.snapshot
//	<prefix>/_probe/<random>
//
// In a name, any byte other than a letter, digit, dot, hyphen or underscore becomes ! and two hexadecimal digits. All
// objects have checksums and a version; a newer version is an error. Objects that no head names any more are deleted after
// at least ten minutes, for the sake of slow readers, and leftovers of a crash after a day.
//
// The credentials need s3:GetObject, s3:PutObject and s3:DeleteObject on <prefix>/*, and s3:ListBucket on the bucket:
// without it the store does not report that an object is missing.
//
// # Cost
//
// An append is one request per log. It rewrites the entries in the head: up to 256 KiB, or four entries. When the head is
// full, writing a segment costs one more request. A snapshot costs two requests, or one with Options.LazySnapshots, and
// deleting what it replaces one request per 64 objects. A Read costs one request, and one for each object that holds part of
// the result. A Driver keeps the heads in memory.
//
// # Durability
//
// S3 keeps what it acknowledges, and shows it to the next reader. In a bucket with versioning, each append leaves an old
// version: add a lifecycle rule that deletes noncurrent versions after a day. Retention rules (object lock) do not harm the
// logs, which never delete versions, but keep all of the old ones.
package s3
