// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/streamid"
)

// Stream describes one stream at the moment it was looked at.
type Stream struct {
	ID   streamid.ID
	Kind Kind
	// Start is the cumulative start timestamp, Last the end of the latest accepted interval, Emitted the latest time
	// given out (Last, or later after late points).
	Start, Last, Emitted pcommon.Timestamp
	// Int is the total of a sum, or Double if IsDouble. Count and Sum are those of a histogram.
	Int      int64
	Double   float64
	IsDouble bool
	Count    uint64
	Sum      float64
}

// Streams appends what dst is to show of each stream; it locks the shard meanwhile.
func (sh *Shard) Streams(dst []Stream) []Stream {
	sh.Lock()
	defer sh.Unlock()
	for i := range sh.N {
		if s := sh.Slot(i); !s.Role.Writes() && s.Meta&FlagFresh == 0 {
			dst = append(dst, sh.Stream(s))
		}
	}
	return dst
}

// Marked reports whether what was given out last of the stream is a "no recorded value" point.
func (s *Slot) Marked() bool { return s.Meta&flagMarked != 0 }

// Stream describes the stream in slot s.
func (sh *Shard) Stream(s *Slot) Stream {
	var t fold.Timeline
	sh.Timeline(s, &t)
	out := Stream{
		ID: s.ID, Kind: s.Kind(),
		Start: pcommon.Timestamp(t.Start), Last: pcommon.Timestamp(t.Last), Emitted: pcommon.Timestamp(t.Emitted),
	}
	if out.Kind == KindSum {
		if out.IsDouble = s.Number().Double; out.IsDouble {
			out.Double = s.Number().Float()
		} else {
			out.Int = s.Number().Int()
		}
		return out
	}
	var d fold.Distribution
	unpackDistribution(&d, (*distributionHeader)(sh.blocks.block(blockRef(s.value))))
	out.Count, out.Sum = d.Count, d.Sum
	return out
}

// Look describes the stream that has s.ID, if there is one. It locks its shard meanwhile.
func (t *Table) Look(s *Stream) {
	sh := &t.Shards[t.ShardOf(s.ID)]
	sh.Lock()
	defer sh.Unlock()
	if slot := sh.Find(s.ID); slot != nil {
		*s = sh.Stream(slot)
	}
}
