// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package s3 keeps the logs of package log in a bucket of S3, or of a store that is compatible in what it needs: PutObject with
// If-None-Match and If-Match, and reads that show what was written last. The Collector's extension s3_state is this package with a
// configuration.
//
// # How it works
//
// A log has a head: an object that names a snapshot and segments, which are other objects, and has the latest entries itself. To append
// is to put a new head in the place of the one that is known, under the condition that it is still there: one request, and who is first
// wins. Where entries get too many for the head they are written as a segment first. There is no clock in this, no lease and no lock:
// a process that was stopped for a week wakes up, puts its head, and is refused.
//
// What no answer came to is sent again under the same condition. If that is refused the head is read, and has the entry, by its ID, or
// not. A [Driver] remembers the head of each log, so nothing is read as long as nobody else appends.
//
// Before it uses a store for the first time a Driver tries it: one that ignores a condition is refused. See [Driver.Probe].
//
// # Objects
//
//	<prefix>/<name>/<log>/head
//	<prefix>/<name>/<log>/<random>.segment
//	<prefix>/<name>/<log>/<random>.snapshot
//	<prefix>/_probe/<random>
//
// In a name, what is no letter, digit, dot, hyphen or underscore is ! and two hexadecimal digits. All have checksums, and a version: a
// newer one is an error. Objects that no head names any more are deleted after ten minutes or more, for readers that are slow, and what a
// crash has left after a day.
//
// The credentials need s3:GetObject, s3:PutObject and s3:DeleteObject on <prefix>/*, and s3:ListBucket on the bucket, without which the
// store does not say that an object is not there.
//
// # Cost
//
// An append is one request per log, and writes what the head has of entries again: up to 256 KiB, or four entries. Once in so many there
// is a segment, which is a request more. A snapshot is two requests, or one with Options.LazySnapshots; what it leaves is deleted with
// one request for 64 objects. A Read is one request, and one for each object that has what is asked for. In memory a Driver has the heads.
//
// # Durability
//
// What S3 acknowledges it keeps, and shows to whoever asks next. Versions of a bucket that keeps them pile up, one for each append: have
// a lifecycle rule delete noncurrent versions after a day. Retention rules (object lock) do no harm to the logs, which delete no versions,
// but keep all of these.
//
// # The client
//
// The client is the caller's; [Tune] sets what this package needs. The Driver sends again what has to be, so the client must not.
package s3
