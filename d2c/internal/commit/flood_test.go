// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"testing"
	"time"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/streamid"
)

// Copies of new streams are found by their identities: those must not meet in the index of a transaction either.
func TestCopiesAreKeyed(t *testing.T) {
	p := &Pipeline{Table: table.New(table.NewKey(), &fold.Rules{}), Time: time.Now}
	p.Epoch = time.Now()
	var tx Tx
	tx.begin(p, nil)
	for name, copies := range map[string]*table.Shard{"a transaction": &tx.copies, "one that is held": &tx.Hold(nil).copies} {
		if copies.Key() != p.Table.Key() {
			t.Errorf("%s: copies are where anybody can tell", name)
		}
		copies.Add(streamid.ID{Hi: 1, Lo: 2}, table.KindSum)
		copies.Clear()
		if copies.Key() != p.Table.Key() {
			t.Errorf("%s: the key is gone with the copies", name)
		}
	}
}
