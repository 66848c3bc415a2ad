// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
)

// sharing says which streams the cores work on. It returns the batch, of n in all, with which a core begins its pass, how
// many it goes through from there, and how many intervals these are after the first one of the pass.
type sharing struct {
	name string
	// intervals is how many each stream sees in a pass.
	intervals func(cores int) int
	part      func(core, cores, n, pass int) (from, to, interval int)
}

// The ways of sharing in tables and JSON.
const (
	nameDisjoint = "disjoint"
	nameInTurn   = "in turn"
	nameAtOnce   = "at once"
)

var sharings = []sharing{
	// Each core has streams of its own, always the same.
	{nameDisjoint, once, func(core, cores, n, _ int) (int, int, int) {
		return core * n / cores, (core + 1) * n / cores, 0
	}},
	// The cores swap their streams after each pass.
	{nameInTurn, once, func(core, cores, n, pass int) (int, int, int) {
		core = (core + pass) % cores
		return core * n / cores, (core + 1) * n / cores, 0
	}},
	// All cores have the same streams at the same moment, in successive intervals: which of them comes first is chance.
	{nameAtOnce, func(cores int) int { return cores }, func(core, _, n, _ int) (int, int, int) {
		return 0, n, core
	}},
}

func once(int) int { return 1 }

// coresRow is what more than one core is good for, by side. The points are sums.
type coresRow struct {
	Streams int                `json:"streams"`
	Sharing string             `json:"sharing"`
	Cores   int                `json:"cores"`
	NsOne   map[string]float64 `json:"ns_per_point_one_core"` // wall time; medians of the rounds, as are the next two
	NsAll   map[string]float64 `json:"ns_per_point_all_cores"`
	Speedup map[string]float64 `json:"speedup"`
	// Lost is the share of all that was sent that is not in the totals in the end: points that overtook each other. It is
	// an error in ours.
	Lost map[string]float64 `json:"lost"`
}

// cores measures one core (GOMAXPROCS is 1: the collector has to share it) and so many, in turns. Hashing, which shares
// nothing, is what the machine can give; a Go map cannot be shared.
func cores(sides []side, how sharing, streams, cores int, e effort) (coresRow, error) {
	row := coresRow{Streams: streams, Sharing: how.name, Cores: cores, NsOne: map[string]float64{}, NsAll: map[string]float64{},
		Speedup: map[string]float64{}, Lost: map[string]float64{}}
	var crews []*crew
	for _, s := range sides {
		c, err := newCrew(s, how, streams, cores)
		if err != nil {
			return row, err
		}
		crews = append(crews, c)
	}
	one, all := make(map[string][]float64), make(map[string][]float64)
	for range e.rounds {
		runtime.GC()
		for _, c := range crews {
			before := runtime.GOMAXPROCS(1)
			mean, err := c.turn(1, e)
			runtime.GOMAXPROCS(before)
			if err != nil {
				return row, err
			}
			one[c.name] = append(one[c.name], mean)
			if mean, err = c.turn(cores, e); err != nil {
				return row, err
			}
			all[c.name] = append(all[c.name], mean)
		}
	}
	for _, c := range crews {
		row.NsOne[c.name], row.NsAll[c.name] = median(one[c.name]), median(all[c.name])
		row.Speedup[c.name] = ratio(one[c.name], all[c.name])
		if !c.converts {
			continue
		}
		var err error
		if row.Lost[c.name], err = c.lost(); err != nil {
			return row, err
		}
		if row.Lost[c.name] != 0 && (c.name == nameOurs || how.name != nameAtOnce) {
			return row, fmt.Errorf("%s, streams %s: a share of %g is not in the totals", c.name, how.name, row.Lost[c.name])
		}
	}
	return row, nil
}

// coreSides are those that can be shared between cores.
func coreSides(how sharing) []side {
	ours := side{name: nameOurs, converts: true, open: openOurs}
	if how.name == nameAtOnce {
		ours.open = openOvertaken
	}
	return []side{ours, {name: nameHash, open: openHash}, {name: nameContrib, converts: true, open: openContrib}}
}

// openOvertaken is the library where points of a stream may overtake each other: what overtakes opens a gap, and what comes
// late fills it.
func openOvertaken() (consume, error) {
	conv, err := newConverter()
	if err != nil {
		return nil, err
	}
	allowed := []d2c.Outcome{d2c.AddedFirst, d2c.AddedAligned, d2c.AddedGap, d2c.AddedLate}
	return func(md pmetric.Metrics) error { return convertTo(conv, md, allowed) }, nil
}

// burst is how many batches a core consumes on one reading of the clock. They are loaded before, and few enough to stay in
// its cache; many enough for the cores to begin and end together, all but a few percent.
const burst = 8

// crew is a side at work on several cores. Each has batches of its own.
type crew struct {
	side
	how     sharing
	consume consume
	batches [][burst]*batch // of each core
	wire    []byte          // of a batch that has lost no point
	total   int             // batches that all streams fill
	passes  int             // so far
	n       int             // intervals that all streams have seen
}

func newCrew(s side, how sharing, streams, cores int) (*crew, error) {
	consume, err := s.open()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	c := &crew{side: s, how: how, consume: consume, batches: make([][burst]*batch, cores), total: batches(streams)}
	for core := range c.batches {
		for i := range c.batches[core] {
			if c.batches[core][i], err = newBatch(kindSum); err != nil {
				return nil, err
			}
		}
	}
	if c.wire, err = c.batches[0][0].encoded(); err != nil {
		return nil, err
	}
	_, err = c.pass(1) // opens all streams
	return c, err
}

// turn passes over all streams on so many cores, as often as it takes for enough calls, and returns the mean wall ns per
// point.
func (c *crew) turn(cores int, e effort) (float64, error) {
	passes := e.passes(c.total * c.how.intervals(cores))
	var spent time.Duration
	for range passes {
		took, err := c.pass(cores)
		if err != nil {
			return 0, err
		}
		spent += took
	}
	return float64(spent.Nanoseconds()) / float64(passes*c.total*c.how.intervals(cores)*pointsPerBatch), nil
}

// pass goes over all streams once on so many cores, a burst at a time, and returns how long all bursts took.
func (c *crew) pass(cores int) (time.Duration, error) {
	var spent time.Duration
	for done := 0; ; done += burst {
		work := make([][]*batch, cores)
		left := false
		for core := range work {
			from, to, interval := c.how.part(core, cores, c.total, c.passes)
			for i, b := range c.batches[core] {
				if at := from + done + i; at < to {
					if err := c.load(b, at, c.n+interval); err != nil {
						return 0, err
					}
					work[core] = append(work[core], b)
					left = true
				}
			}
		}
		if !left {
			break
		}
		took, err := c.together(work)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", c.name, err)
		}
		spent += took
	}
	c.passes++
	c.n += c.how.intervals(cores)
	return spent, nil
}

// load is batch.load of a batch whose points may have been dropped.
func (c *crew) load(b *batch, index, interval int) error {
	if b.md.DataPointCount() != b.points {
		md, err := new(pmetric.ProtoUnmarshaler).UnmarshalMetrics(c.wire)
		if err != nil {
			return err
		}
		b.md = md
	}
	b.load(index, interval)
	return nil
}

// together consumes each core's batches on that core, and returns the time from when the first begins until the last is
// done.
func (c *crew) together(work [][]*batch) (time.Duration, error) {
	type span struct {
		begin, end time.Time
		err        error
	}
	spans := make([]span, len(work))
	var here atomic.Int32
	var wg sync.WaitGroup
	for core := range work {
		wg.Go(func() {
			// Woken one after the other, they would begin one after the other: who is awake waits awake.
			here.Add(1)
			for here.Load() < int32(len(work)) {
				runtime.Gosched()
			}
			s := span{begin: time.Now()}
			for _, b := range work[core] {
				if s.err = c.consume(b.md); s.err != nil {
					break
				}
			}
			s.end = time.Now()
			spans[core] = s
		})
	}
	wg.Wait()
	for _, s := range spans {
		if s.err != nil {
			return 0, s.err
		}
	}
	first := slices.MinFunc(spans, func(a, b span) int { return a.begin.Compare(b.begin) })
	last := slices.MaxFunc(spans, func(a, b span) int { return a.end.Compare(b.end) })
	return last.end.Sub(first.begin), nil
}

// lost sends one more interval, from one core, and returns the share of all deltas since the first that is not in the
// totals that come out.
func (c *crew) lost() (float64, error) {
	var got, want int64
	for i := range c.total {
		b := c.batches[0][0]
		if err := c.load(b, i, c.n); err != nil {
			return 0, err
		}
		if err := c.consume(b.md); err != nil {
			return 0, fmt.Errorf("%s: %w", c.name, err)
		}
		for _, rm := range b.md.ResourceMetrics().All() {
			for _, sm := range rm.ScopeMetrics().All() {
				for _, m := range sm.Metrics().All() {
					for _, p := range m.Sum().DataPoints().All() {
						got += p.IntValue()
					}
				}
			}
		}
		want += pointsPerBatch * deltaInt * int64(c.n+1)
	}
	c.n++
	return 1 - float64(got)/float64(want), nil
}
