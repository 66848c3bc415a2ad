// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package storetest checks whether a store.Shared does what package store asks of it. Whoever writes one calls [TestShared] in a
// test of its own:
//
//	func TestStore(t *testing.T) {
//		storetest.TestShared(t, func(t *testing.T) storetest.Fixture {
//			db := startDatabase(t)
//			return storetest.Fixture{
//				Open: func() store.Shared { return mystore.New(db.Addr()) },
//				Wipe: db.Flush,
//			}
//		})
//	}
//
// What it cannot check is what a store loses when its server is killed or fails over, and whether it does a swap once where an
// answer is lost.
package storetest

import (
	"testing"
	"time"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// Fixture is a store under test. It is empty at first.
type Fixture struct {
	// Open returns another client of it. All of them share its records.
	Open func() store.Shared
	// Wipe loses all that is stored, records and lives, as a server does that restarts with nothing. If it is nil, nothing is
	// tested that needs it.
	Wipe func()
	// Remove loses the record of one stream. If it is nil, nothing is tested that needs it.
	Remove func(id streamid.ID)
	// TTL is how long a record lives at least after it was last written. If it is zero, they are taken to live for ever. The test
	// takes four times as long, so it should be no more than some seconds, unless there is Wait.
	TTL time.Duration
	// Wait lets time pass. If it is nil, it is time.Sleep. A store with a clock of its own for tests has Now as well.
	Wait func(d time.Duration)
	// Now is the time. If it is nil, it is time.Now.
	Now func() time.Time
}

// TestShared runs all checks as subtests of t, each on a store that fixture makes for it.
func TestShared(t *testing.T, fixture func(t *testing.T) Fixture) {
	t.Helper()
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) { c.run(t, fixture(t).withDefaults()) })
	}
}

func (f Fixture) withDefaults() Fixture {
	if f.Wait == nil {
		f.Wait = time.Sleep
	}
	if f.Now == nil {
		f.Now = time.Now
	}
	return f
}

// tester is what checks need of *testing.T: so a test of the checks can see them fail.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

// check is one property of a store.
type check struct {
	name string
	run  func(t tester, f Fixture)
}

var checks = []check{
	{"lives are set if absent and the same for all", livesAreAgreed},
	{"lives are for a power of two of groups", livesAreForGroups},
	{"a swap looks at what is there", swapsCompare},
	{"a swap on its own base wins", swapsFollow},
	{"tags differ in any bit", tagsAreExact},
	{"results are in order", resultsAreInOrder},
	{"no swaps", noSwaps},
	{"records are copied", recordsAreCopied},
	{"results are the caller's", resultsAreTheCallers},
	{"every byte", everyByte},
	{"large records", largeRecords},
	{"large batches", largeBatches},
	{"clients see each other", clientsSeeEachOther},
	{"units are done all or none", unitsAreWhole},
	{"units of any size", unitsOfAnySize},
	{"units that are sent twice", unitsSentTwice},
	{"other lives are refused", otherLivesAreRefused},
	{"a wipe ends lives", wipesEndLives},
	{"a removed record is gone", removedIsGone},
	{"set aside", setAside},
	{"one of many wins", oneOfManyWins},
	{"units of many do not mix", unitsDoNotMix},
	{"reads tell what is there", readsTell},
	{"a context that is over", contextIsOver},
	{"records live on while they are written", recordsLiveOn},
}
