// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/processor"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/streamid"
)

// churnRow is the cost of a round in which a tenth of the streams is new and as many are forgotten, by side.
type churnRow struct {
	Kind     kind               `json:"kind"`
	Streams  int                `json:"streams"`
	Replaced int                `json:"replaced_per_round"` // streams that are new, and streams that are forgotten
	NsPoint  map[string]float64 `json:"ns_per_point"`       // converting and forgetting; median of the rounds' means
	Ratio    float64            `json:"ratio"`              // contrib over d2c, the median of the rounds' ratios
	// Forget is the time spent forgetting in one round, in which all streams are looked at. It is in NsPoint too.
	Forget map[string]time.Duration `json:"forget_ns"`
}

// A round takes a minute, as contrib's sweep does, and a stream that was not in it is forgotten at its end: it has been
// idle for two minutes then, nearly, and one that was in it for one.
const (
	churnRound = time.Minute
	churnStale = 90 * time.Second
)

// ager is one of the things compared: a side that also forgets.
type ager struct {
	name     string
	converts bool
	open     func() (*aging, error)
}

// aging is an ager with its state.
type aging struct {
	consume consume
	// minute lets a minute pass, at the end of which streams that have become stale are forgotten.
	minute func()
	// streams returns the number of live streams; nil if only its output tells.
	streams func() int
	close   func()
}

// agers in the order of their turns.
var agers = []ager{
	{name: nameOurs, converts: true, open: openAgingOurs},
	{name: nameHash, open: openAgingHash},
	{name: nameMap, open: openAgingMap},
	{name: nameContrib, converts: true, open: func() (*aging, error) {
		return openAgingContrib(componenttest.NewNopTelemetrySettings())
	}},
}

// churn measures rounds in which pods are replaced: one of the ten resources of each batch comes with a new identity, and
// is not seen under its old one again. Sides take turns as in steady. After the last round the streams replaced in it come
// back: it is an error if a side still knows one.
func churn(agers []ager, k kind, streams int, e effort) (churnRow, error) {
	n := batches(streams)
	row := churnRow{Kind: k, Streams: streams, Replaced: n * pointsPerBatch / resources, NsPoint: map[string]float64{},
		Forget: map[string]time.Duration{}}
	var churners []*churner
	for _, a := range agers {
		state, err := a.open()
		if err != nil {
			return row, fmt.Errorf("%s: %w", a.name, err)
		}
		defer state.close()
		b, err := newBatch(k)
		if err != nil {
			return row, err
		}
		c := &churner{ager: a, aging: state, b: b, n: n}
		churners = append(churners, c)
		if _, _, err := c.pass(); err != nil { // opens all streams
			return row, err
		}
	}
	means, forgets := make(map[string][]float64), make(map[string][]float64)
	for range e.rounds {
		runtime.GC()
		for _, c := range churners {
			passes := e.passes(n)
			var converted, forgot time.Duration
			for range passes {
				took, took2, err := c.pass()
				if err != nil {
					return row, err
				}
				converted += took
				forgot += took2
			}
			means[c.name] = append(means[c.name], float64((converted+forgot).Nanoseconds())/float64(passes*n*pointsPerBatch))
			forgets[c.name] = append(forgets[c.name], float64(forgot.Nanoseconds())/float64(passes))
		}
	}
	for _, c := range churners {
		if err := c.comeBack(); err != nil {
			return row, err
		}
		row.NsPoint[c.name] = median(means[c.name])
		row.Forget[c.name] = time.Duration(median(forgets[c.name]))
	}
	row.Ratio = ratio(means[nameContrib], means[nameOurs])
	return row, nil
}

// churner is an ager at work.
type churner struct {
	ager
	*aging
	b     *batch
	n     int // batches in a round
	round int // of the next pass
}

// pass is one round. It returns the time spent converting and the time spent forgetting.
func (c *churner) pass() (converted, forgot time.Duration, err error) {
	for i := range c.n {
		c.b.loadReplaced(i, c.round, c.round)
		begin := time.Now()
		err := c.consume(c.b.md)
		converted += time.Since(begin)
		if err == nil && c.converts {
			err = c.b.checkEach(func(r int) int { return c.round - born(r, c.round) + 1 })
		}
		if err != nil {
			return 0, 0, fmt.Errorf("%s, round %d: %w", c.name, c.round, err)
		}
	}
	begin := time.Now()
	c.minute()
	forgot = time.Since(begin)
	if want := c.n * pointsPerBatch; c.streams != nil && c.streams() != want {
		return 0, 0, fmt.Errorf("%s, round %d: %d streams left, want %d", c.name, c.round, c.streams(), want)
	}
	c.round++
	return converted, forgot, nil
}

// comeBack brings the resources replaced in the last round back. Their streams must begin at nothing, all others go on.
func (c *churner) comeBack() error {
	last := c.round - 1
	if !c.converts || last == 0 {
		return nil
	}
	for i := range c.n {
		c.b.loadReplaced(i, last-1, c.round)
		if err := c.consume(c.b.md); err != nil {
			return fmt.Errorf("%s, coming back: %w", c.name, err)
		}
		err := c.b.checkEach(func(r int) int {
			if born(r, last) == last {
				return 1
			}
			return c.round - born(r, last) + 1
		})
		if err != nil {
			return fmt.Errorf("%s, after coming back: %w", c.name, err)
		}
	}
	return nil
}

// loadReplaced is load with the identities that resources have in some round.
func (b *batch) loadReplaced(index, round, interval int) {
	for r, rm := range b.md.ResourceMetrics().All() {
		nameResource(rm.Resource(), uint64(born(r, round))<<32+uint64(index*b.resources+r))
	}
	b.reset(interval)
	b.touch()
}

// born returns the round, up to the given one, in which the r-th resource of every batch last was replaced: the first one
// is in rounds 1, 11, 21 and so on, the second in rounds 2, 12 and 22. Before that it is 0.
func born(r, round int) int {
	if round <= r {
		return 0
	}
	return round - (round-1-r)%resources
}

// openAgingOurs is the library with a clock of its own. Expire is all the forgetting there is.
func openAgingOurs() (*aging, error) {
	now := time.Unix(0, epoch)
	cfg := d2c.DefaultConfig()
	cfg.MaxStreams, cfg.MaxStale = maxStreams, churnStale
	cfg.Now = func() time.Time { return now }
	conv, err := d2c.New(cfg)
	if err != nil {
		return nil, err
	}
	return &aging{
		consume: func(md pmetric.Metrics) error { return convert(conv, md) },
		minute: func() {
			now = now.Add(churnRound)
			conv.Expire()
		},
		streams: conv.Len,
		close:   func() {},
	}, nil
}

func openAgingHash() (*aging, error) {
	consume, err := openHash()
	return &aging{consume: consume, minute: func() {}, close: func() {}}, err
}

// openAgingMap has the round in which each stream was seen last in its Go map, and goes through all of it.
func openAgingMap() (*aging, error) {
	seen := make(map[streamid.ID]uint64)
	round := uint64(0)
	return &aging{
		consume: func(md pmetric.Metrics) error {
			identify(md, func(id streamid.ID) { seen[id] = round })
			return nil
		},
		minute: func() {
			for id, last := range seen {
				if last < round {
					delete(seen, id)
				}
			}
			round++
		},
		streams: func() int { return len(seen) },
		close:   func() {},
	}, nil
}

// openAgingContrib starts contrib's processor, which then sweeps once a minute by a ticker, on a goroutine of its own, and
// offers no other way to forget. So it lives in a bubble where a minute takes as long as what is done in it: the very
// sweep of v0.160.0 runs, whole and while nothing else does, and is on the clock just as Expire is. Contrib's own test of
// staleness does the same. Calls pay for being handed into the bubble, a microsecond per 1000 points.
func openAgingContrib(telemetry component.TelemetrySettings) (*aging, error) {
	ctx := context.Background()
	var proc processor.Metrics
	var err error
	inside := newBubble()
	inside.do(func() {
		if proc, err = newContrib(telemetry, churnStale); err == nil {
			err = proc.Start(ctx, nil)
			time.Sleep(time.Second) // so that the ticker never ticks when we wake up
		}
	})
	if err != nil {
		inside.burst()
		return nil, err
	}
	return &aging{
		consume: func(md pmetric.Metrics) (err error) {
			inside.do(func() { err = proc.ConsumeMetrics(ctx, md) })
			return err
		},
		minute: func() {
			inside.do(func() {
				time.Sleep(churnRound)
				synctest.Wait() // for the end of the sweep
			})
		},
		close: func() {
			inside.do(func() { _ = proc.Shutdown(ctx) }) // cannot fail
			inside.burst()
		},
	}, nil
}

// bubble is one of package synctest: its clock stands still while anything in it runs, and jumps when all of it sleeps.
type bubble struct {
	work chan func()
	done chan struct{}
	gone chan struct{}
}

func newBubble() *bubble {
	b := &bubble{make(chan func()), make(chan struct{}), make(chan struct{})}
	go func() {
		defer close(b.gone)
		// Only tests are given a bubble. This is none, and an empty T is enough as long as nothing fails by it.
		synctest.Test(new(testing.T), func(*testing.T) {
			for f := range b.work {
				f()
				b.done <- struct{}{}
			}
		})
	}()
	return b
}

// do runs f in the bubble and waits for it.
func (b *bubble) do(f func()) {
	b.work <- f
	<-b.done
}

// burst ends the bubble. All goroutines that were started in it must have been told to end.
func (b *bubble) burst() {
	close(b.work)
	<-b.gone
}
