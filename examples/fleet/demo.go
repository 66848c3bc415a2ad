// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// demonstration has the same event happen to two fleets at once, ours and contrib's, under the same load, and publishes what
// their own telemetry, their recorders and their Prometheus say of it meanwhile.
type demonstration struct {
	out  io.Writer
	page *page

	barriers map[stage]*barrier

	mu    sync.Mutex
	state state
	sides map[string]*onlooker // by name of the side
}

// state is what the page shows. Times are Unix ms.
type state struct {
	Phase string `json:"phase"` // build, start, before, event, after, judge, done; or failed
	Text  string `json:"text"`  // what is going on, in a sentence
	Since int64  `json:"since"` // when it began
	Begin int64  `json:"begin"` // of the event, 0 before
	End   int64  `json:"end"`
	// Counters is how many each fleet has.
	Counters int `json:"counters"`
	// Counter is the one whose line is drawn; Sent is what its producer counted and had acknowledged.
	Counter string      `json:"counter"`
	Sent    []point     `json:"sent"`
	Sides   []sideState `json:"sides"`
}

// point is a time, in Unix ms, and a value.
type point [2]float64

type sideState struct {
	Name     string        `json:"name"`
	About    string        `json:"about"`
	Gateways int           `json:"gateways"`
	Workers  []workerState `json:"workers"`
	Ours     *ringState    `json:"ours"`    // nil for contrib, which has no such telemetry
	Fallen   int           `json:"fallen"`  // counters that fell, as Prometheus counts them by resets()
	Samples  []point       `json:"samples"` // of the counter, as Prometheus has them
	// Rejected is the number of samples in requests that Prometheus rejected.
	Rejected int           `json:"rejected"`
	Verdict  *verdictState `json:"verdict"`
	Trouble  string        `json:"trouble"` // why the latest look failed
}

type workerState struct {
	Name   string  `json:"name"`
	Member bool    `json:"member"` // gateways are told of it
	Share  float64 `json:"share"`  // of the points that all workers took in lately
	Rate   float64 `json:"rate"`   // of these points, per second
}

// ringState is what gateways and workers of ours say.
type ringState struct {
	Members   int     `json:"members"`   // that gateways route to
	Moved     float64 `json:"moved"`     // share of all routing keys whose owner has changed
	Minimum   float64 `json:"minimum"`   // the least that could have been
	Conflicts int     `json:"conflicts"` // records that another worker had changed, so that the fold was done again
	Swapped   int     `json:"swapped"`   // records that were stored
}

type verdictState struct {
	Resets   int     `json:"resets"`
	Drops    int     `json:"drops"`
	Wrong    int     `json:"wrong"`
	Rejected int     `json:"rejected"`
	Retries  int     `json:"retries"`
	Stalest  float64 `json:"stalest"` // s
	Series   int     `json:"series"`
}

// demoSides are those that the page shows, from left to right.
var demoSides = []struct {
	side  side
	about string
}{
	{ours, "gateways: ring. Workers: d2c, state shared on Redis"},
	{peer, "gateways: load_balancing by streamID. Workers: delta_to_cumulative"},
}

// runDemo shows the event on a page until ctx ends. It returns errFlawed if ours has anything but zeros in the verdict.
func runDemo(ctx context.Context, out io.Writer, opt options, only string) error {
	chosen, err := choose(cmp.Or(only, "scale-out"))
	if err != nil {
		return err
	}
	e := chosen[0]
	if len(chosen) > 1 || e.store || e.gateways == 0 {
		return fmt.Errorf("-event: %q cannot be shown: -demo takes one event, with gateways, that both fleets can have", only)
	}
	p, err := newPage(opt.http)
	if err != nil {
		return err
	}
	defer p.stop()
	d := newDemonstration(out, p)
	fmt.Fprintf(out, "Open %s in a browser. Ctrl-C ends it.\n", p.url)
	rows, err := d.perform(ctx, opt, e)
	if err != nil {
		if ctx.Err() != nil {
			fmt.Fprintln(out, "Interrupted.")
			return nil
		}
		d.phase("failed", err.Error())
		return err
	}
	writeTable(out, rows)
	fmt.Fprintf(out, "\nThe page stays at %s until Ctrl-C.\n", p.url)
	<-ctx.Done()
	if !rows[0].flawless() {
		return errFlawed
	}
	return nil
}

func newDemonstration(out io.Writer, p *page) *demonstration {
	d := &demonstration{out: out, page: p, barriers: map[stage]*barrier{}, sides: map[string]*onlooker{}}
	for s := stageReady; s <= stageJudged; s++ {
		d.barriers[s] = newBarrier(len(demoSides))
	}
	for _, s := range demoSides {
		d.state.Sides = append(d.state.Sides, sideState{Name: s.side.name, About: s.about, Workers: []workerState{}, Samples: []point{}})
	}
	d.state.Sent = []point{}
	return d
}

// perform builds both Collectors and has the event happen.
func (d *demonstration) perform(ctx context.Context, opt options, e event) ([]row, error) {
	opt.stage = d.reached
	built, binaries := collectors{}, make([]string, len(demoSides))
	for i, s := range demoSides {
		d.phase("build", fmt.Sprintf("compiling the Collector of %s, %d of %d: minutes the first time, half a minute after that",
			s.side.name, i+1, len(demoSides)))
		var err error
		if binaries[i], err = built.of(ctx, s.side); err != nil {
			return nil, err
		}
	}
	d.phase("start", fmt.Sprintf("starting two fleets, each of %d gateways, %d workers and a Prometheus of its own; ours has a Redis", e.gateways, e.workers))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	rows := make([]row, len(demoSides))
	var both sync.WaitGroup
	for i, s := range demoSides {
		both.Go(func() {
			v, err := opt.happen(ctx, e, s.side, binaries[i])
			if err != nil {
				cancel(fmt.Errorf("%s: %w", s.side.name, err)) // the other must not wait for this one
			}
			rows[i] = row{e, s.side, v}
		})
	}
	both.Wait()
	d.dismiss()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	d.phase("done", "every sample was read back from Prometheus and compared with what was sent and acknowledged")
	return rows, nil
}

// phase begins one, on the page and in the terminal.
func (d *demonstration) phase(name, text string) {
	fmt.Fprintf(d.out, "%s: %s\n", name, text)
	d.update(func(s *state) { s.Phase, s.Text, s.Since = name, text, time.Now().UnixMilli() })
}

func (d *demonstration) update(change func(s *state)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.state)
	d.page.publish(d.state)
}

// reached is called by both fleets, which wait for each other so that the same happens to both at the same time.
func (d *demonstration) reached(ctx context.Context, s side, m moment) error {
	if m.stage == stageReady {
		d.watch(ctx, s, m)
	}
	if m.stage == stageJudged {
		d.judged(s, m)
		return nil
	}
	if m.stage == stageJudge {
		d.onlooker(s).leave() // what it would see from now on is how the fleet ends
	}
	return d.barriers[m.stage].wait(ctx, func() {
		switch m.stage {
		case stageReady:
			d.phase("before", "clients send deltas every second; nothing happens yet")
		case stageEvent:
			d.update(func(s *state) { s.Begin = time.Now().UnixMilli() })
			d.phase("event", "more workers start and join; gateways move streams to them")
		case stageAfter:
			d.update(func(s *state) { s.End = time.Now().UnixMilli() })
			d.phase("after", "the list of workers has changed; gateways follow within a second or two")
		case stageJudge:
			d.phase("judge", "reading every sample back from Prometheus")
		}
	})
}

// barrier lets all go on when all have come.
type barrier struct {
	mu      sync.Mutex
	missing int
	open    chan struct{}
}

func newBarrier(n int) *barrier { return &barrier{missing: n, open: make(chan struct{})} }

// wait returns when all have called it. The last one calls last before.
func (b *barrier) wait(ctx context.Context, last func()) error {
	b.mu.Lock()
	if b.missing--; b.missing == 0 {
		last()
		close(b.open)
	}
	b.mu.Unlock()
	select {
	case <-b.open:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// onlooker looks at a fleet every second.
type onlooker struct {
	side   side
	fleet  *fleet
	load   *load
	leave  func() // returns when it has; may be called again
	counts []workerCounts
}

// workerCounts are the points that each worker says it has taken in.
type workerCounts struct {
	at     time.Time
	points map[string]float64
}

// sharesOver is for how many looks shares are those of the points since.
const sharesOver = 3

func (d *demonstration) watch(ctx context.Context, s side, m moment) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	o := &onlooker{side: s, fleet: m.fleet, load: m.load}
	o.leave = func() {
		cancel()
		<-done
	}
	d.mu.Lock()
	d.sides[s.name] = o
	d.mu.Unlock()
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			d.look(o)
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
}

func (d *demonstration) onlooker(s side) *onlooker {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sides[s.name]
}

// dismiss waits until nobody looks any more.
func (d *demonstration) dismiss() {
	for _, s := range demoSides {
		if o := d.onlooker(s.side); o != nil {
			o.leave()
		}
	}
}

// counterKey is the counter that is drawn until one is known that fell.
var counterKey = seriesKey{name: counterSeries, instance: "agent-0", stream: streamName(0)}

func (k seriesKey) selector() string {
	return fmt.Sprintf("%s{instance=%q,stream=%q}", k.name, k.instance, k.stream)
}

// look asks the processes of a fleet and publishes what they say.
func (d *demonstration) look(o *onlooker) {
	d.mu.Lock()
	counter := d.state.Counter
	d.mu.Unlock()
	seen, fell, err := o.look(cmp.Or(counter, counterKey.selector()))
	d.update(func(s *state) {
		for i := range s.Sides {
			if s.Sides[i].Name != o.side.name {
				continue
			}
			if err != nil {
				s.Sides[i].Trouble = err.Error()
				return
			}
			seen.Name, seen.About = s.Sides[i].Name, s.Sides[i].About
			s.Sides[i] = seen
		}
		if s.Counter == "" {
			s.Counter = counterKey.selector()
		}
		// One that fell shows what happened to so many. Its line is that from the beginning, as Prometheus has it.
		if fell != (seriesKey{}) && s.Counter == counterKey.selector() {
			s.Counter = fell.selector()
		}
		if o.side.name == ours.name {
			s.Sent = o.load.sent(s.Counter)
			s.Counters = o.load.counters()
		}
	})
}

// look returns what a fleet says of itself, and a counter of its that fell, if any has.
func (o *onlooker) look(counter string) (seen sideState, fell seriesKey, err error) {
	workers, members := o.fleet.staff()
	seen.Gateways = len(o.fleet.gateways)
	if seen.Workers, err = o.shares(workers, members); err != nil {
		return seen, fell, err
	}
	if o.side.store != nil {
		if seen.Ours, err = o.ring(workers); err != nil {
			return seen, fell, err
		}
	}
	now := time.Now().Add(5 * time.Second)
	fallen, err := o.fleet.prom.database.query("resets("+counterSeries+"[10m]) > 0", now)
	if err != nil {
		return seen, fell, err
	}
	seen.Fallen = len(fallen)
	for _, r := range fallen {
		k := seriesKey{name: counterSeries, instance: r.Metric["instance"], stream: r.Metric["stream"]}
		if fell == (seriesKey{}) || k.selector() < fell.selector() { // the same one every time
			fell = k
		}
	}
	lines, err := o.fleet.prom.database.query(counter+"[10m]", now)
	if err != nil {
		return seen, fell, err
	}
	seen.Samples = []point{}
	for _, r := range lines {
		for _, v := range r.Values {
			seen.Samples = append(seen.Samples, point{float64(milli(v[0])), float64(v[1])})
		}
	}
	seen.Rejected, _ = o.fleet.recorder.refused()
	return seen, fell, nil
}

// shares tells how the points of the last seconds were divided among workers.
func (o *onlooker) shares(workers []*collector, members []string) ([]workerState, error) {
	now := workerCounts{time.Now(), map[string]float64{}}
	for _, w := range workers {
		m, err := scrape(w.telemetry)
		if err != nil {
			return nil, err
		}
		// With or without the suffix that exporters of Prometheus append.
		now.points[w.name] = m.sum("otelcol_receiver_accepted_metric_points") + m.sum("otelcol_receiver_accepted_metric_points_total")
	}
	o.counts = append(o.counts, now)
	if len(o.counts) > sharesOver+1 {
		o.counts = o.counts[1:]
	}
	before, total := o.counts[0], 0.0
	for name, points := range now.points {
		total += points - before.points[name]
	}
	all := []workerState{}
	for _, w := range workers {
		s := workerState{Name: w.name, Member: slices.Contains(members, w.name)}
		if took := now.at.Sub(before.at).Seconds(); took > 0 && total > 0 {
			lately := now.points[w.name] - before.points[w.name]
			s.Share, s.Rate = lately/total, lately/took
		}
		all = append(all, s)
	}
	return all, nil
}

// ring adds up what gateways and workers of ours say of the ring and of shared state.
func (o *onlooker) ring(workers []*collector) (*ringState, error) {
	r := &ringState{}
	for i, g := range o.fleet.gateways {
		m, err := scrape(g.telemetry)
		if err != nil {
			return nil, err
		}
		if n := int(m.sum("otelcol_ring_members")); i == 0 || n < r.Members {
			r.Members = n // all know as many as this
		}
		r.Moved = max(r.Moved, m.sum("otelcol_ring_moved"))
		r.Minimum = max(r.Minimum, m.sum("otelcol_ring_moved_minimum"))
	}
	for _, w := range workers {
		m, err := scrape(w.telemetry)
		if err != nil {
			return nil, err
		}
		r.Conflicts += int(m.sum("otelcol_redis_state_records", `outcome="conflict"`))
		r.Swapped += int(m.sum("otelcol_redis_state_records", `outcome="swapped"`))
	}
	return r, nil
}

// staff returns the workers, by name, and the names of those that gateways are told of.
func (f *fleet) staff() (workers []*collector, members []string) {
	f.watching.Lock()
	defer f.watching.Unlock()
	for _, name := range slices.Sorted(maps.Keys(f.workers)) {
		workers = append(workers, f.workers[name])
	}
	return workers, slices.Clone(f.members)
}

// judged publishes a verdict, and the counter as it ended.
func (d *demonstration) judged(s side, m moment) {
	v := m.verdict
	d.update(func(state *state) {
		for i := range state.Sides {
			shown := &state.Sides[i]
			if shown.Name != s.name {
				continue
			}
			shown.Verdict = &verdictState{
				Resets: v.resets, Drops: v.drops, Wrong: v.wrong, Rejected: v.rejected, Retries: v.retries, Stalest: v.stalest.Seconds(), Series: v.series,
			}
			shown.Rejected, shown.Fallen = v.rejected, 0
			for key, samples := range v.samples {
				if key.name == counterSeries && falls(samples) > 0 {
					shown.Fallen++
				}
			}
			shown.Samples = []point{}
			for key, samples := range v.samples {
				if key.selector() != state.Counter || key.le != "" {
					continue
				}
				for _, sample := range samples {
					shown.Samples = append(shown.Samples, point{float64(sample.ms), sample.value})
				}
			}
		}
		if s.name == ours.name {
			state.Sent = m.load.sent(state.Counter)
		}
	})
}

// sent is what the producer of a counter counted and had acknowledged, by interval.
func (l *load) sent(selector string) []point {
	sums := []point{}
	for _, a := range l.agents {
		if !strings.Contains(selector, fmt.Sprintf("instance=%q", a.name)) {
			continue
		}
		for stream := range a.counters {
			key := seriesKey{name: counterSeries, instance: a.name, stream: streamName(stream)}
			if key.selector() != selector {
				continue
			}
			var total int64
			for i := range int(a.done.Load()) {
				total += a.orders(stream, i)
				sums = append(sums, point{float64(a.end(i).UnixMilli()), float64(total)})
			}
		}
	}
	return sums
}

func (l *load) counters() int {
	n := 0
	for _, a := range l.agents {
		n += a.counters
	}
	return n
}

var errNotLoopback = errors.New("not a loopback address: the page is for this machine only")
