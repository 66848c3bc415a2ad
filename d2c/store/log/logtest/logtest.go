// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package logtest checks whether a log.Driver does what package log asks of it. Whoever writes one calls [Run] in a test of its own:
//
//	func TestDriver(t *testing.T) {
//		logtest.Run(t, func(t *testing.T) logtest.Fixture {
//			db := startDatabase(t)
//			return logtest.Fixture{Open: func() log.Driver { return mydriver.New(db.Addr()) }}
//		})
//	}
//
// What it cannot check is what a Driver loses when its server is killed or fails over, and what it has done where an answer is lost.
package logtest

import (
	"testing"

	"github.com/deltaring/deltaring/d2c/store/log"
)

// Fixture is a driver under test. Its logs are empty at first.
type Fixture struct {
	// Open returns another Driver. All of them have the same logs.
	Open func() log.Driver
	// MaxEntry and MaxSnapshot are the sizes in bytes of the largest entries and snapshots that are tried. Default 4 MiB and 16 MiB. A
	// driver should take these at least.
	MaxEntry, MaxSnapshot int
}

// Run runs all checks as subtests of t, each on logs that fixture makes for it.
func Run(t *testing.T, fixture func(t *testing.T) Fixture) {
	t.Helper()
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) { c.run(t, fixture(t).withDefaults()) })
	}
}

func (f Fixture) withDefaults() Fixture {
	if f.MaxEntry == 0 {
		f.MaxEntry = 4 << 20
	}
	if f.MaxSnapshot == 0 {
		f.MaxSnapshot = 16 << 20
	}
	return f
}

// tester is what checks need of *testing.T: so a test of the checks can see them fail.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// check is one property of a driver.
type check struct {
	name string
	run  func(t tester, f Fixture)
}

var checks = []check{
	{"a log is empty at first", emptyAtFirst},
	{"entries come back in order", entriesComeBack},
	{"who appends first wins", firstWins},
	{"an append is at the end only", appendsAtTheEnd},
	{"positions differ in any bit", positionsAreExact},
	{"a check appends nothing", checksAppendNothing},
	{"appends of one call are apart", appendsAreApart},
	{"no appends", noAppends},
	{"logs are apart", logsAreApart},
	{"reading after any position", readsAfterAny},
	{"a snapshot takes the place of entries", snapshotsReplace},
	{"entries after a snapshot stay", entriesStay},
	{"a snapshot that is too late", snapshotsTooLate},
	{"a snapshot after a snapshot", snapshotsFollow},
	{"a stale owner wakes up after a snapshot", staleOwners},
	{"bytes are not kept", bytesAreNotKept},
	{"every byte", everyByte},
	{"large entries and snapshots", largeOnes},
	{"many entries", manyEntries},
	{"of many that begin a log one does", oneBegins},
	{"owners, readers and snapshots at once", allAtOnce},
	{"a context that is over", contextIsOver},
}
