// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"math/rand/v2"
	"testing"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/streamid"
)

// probes returns how many index entries it takes to find all streams of a table, and how many streams the fullest shard has.
func probes(t *Table, ids []streamid.ID) (looks, fullest int) {
	for _, id := range ids {
		t.Shards[t.ShardOf(id)].Add(id, KindSum)
	}
	for i := range t.Shards {
		sh := &t.Shards[i]
		fullest = max(fullest, sh.N)
		for n := range sh.N {
			for at := placeIn(len(sh.index), sh.key.hash(sh.Slot(n).ID)); ; at = (at + 1) % len(sh.index) {
				looks++
				if sh.index[at]&MaxSlots == uint32(n+1) {
					break
				}
			}
		}
	}
	return looks, fullest
}

// Who chooses attributes can choose identities that agree in many bits. They must not meet in one shard, nor at one place of an
// index: they cost what any others do, whatever the key is.
func TestCraftedIdentitiesCostNoMore(t *testing.T) {
	const streams, keys = 20_000, 40
	crafted := map[string]func(i uint64) streamid.ID{
		"one half is the same":       func(i uint64) streamid.ID { return streamid.ID{Hi: 42, Lo: i} },
		"the other half is":          func(i uint64) streamid.ID { return streamid.ID{Hi: i, Lo: 42} },
		"one half, middle bits":      func(i uint64) streamid.ID { return streamid.ID{Hi: 42, Lo: i << 20} },
		"the other half, first bits": func(i uint64) streamid.ID { return streamid.ID{Hi: i << 40, Lo: 42} },
		"first bits of Hi":           func(i uint64) streamid.ID { return streamid.ID{Hi: i, Lo: i * 0x9e3779b97f4a7c15} },
		"last bits of Lo":            func(i uint64) streamid.ID { return streamid.ID{Hi: i * 0x9e3779b97f4a7c15, Lo: i << 40} },
		"both halves are shifts":     func(i uint64) streamid.ID { return streamid.ID{Hi: i << 32, Lo: i << 20} },
		"all but a few bits":         func(i uint64) streamid.ID { return streamid.ID{Hi: 7 | i<<20, Lo: 9 | i<<44} },
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var honest []streamid.ID
	for range streams {
		honest = append(honest, streamid.ID{Hi: rng.Uint64(), Lo: rng.Uint64()})
	}
	key := func() Key { return Key{rng.Uint64(), rng.Uint64()} }
	looks, fullest := probes(New(key(), &fold.Rules{}), honest)
	for name, id := range crafted {
		var ids []streamid.ID
		for i := range uint64(streams) {
			ids = append(ids, id(i))
		}
		for range keys {
			k := key()
			if l, f := probes(New(k, &fold.Rules{}), ids); l > 2*looks || f > 2*fullest {
				t.Errorf("%s, key %x: %d looks, honest %d; fullest shard %d, honest %d", name, k, l, looks, f, fullest)
			}
		}
	}
}
