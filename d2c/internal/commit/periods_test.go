// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package commit_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/deltaring/deltaring/d2c/internal/commit"
	"github.com/deltaring/deltaring/d2c/internal/points"
)

// said is a route as a gateway says it: "A@10", or "A@10 after B@5".
func said(t testing.TB, text string) points.Route {
	t.Helper()
	var r points.Route
	var epoch, previous rune
	if strings.Contains(text, " after ") {
		if _, err := fmt.Sscanf(text, "%c@%d after %c@%d", &epoch, &r.Since, &previous, &r.PreviousSince); err != nil {
			t.Fatal(text, err)
		}
	} else if _, err := fmt.Sscanf(text, "%c@%d", &epoch, &r.Since); err != nil {
		t.Fatal(text, err)
	}
	r.ID, r.Epoch, r.Previous = uint64(epoch), uint64(epoch), uint64(previous)
	return r
}

// The rules one by one: what gateways say, in the order in which it comes in, and what is then known of the first and the last.
func TestPeriodsByRule(t *testing.T) {
	const same, next, moved = "same", "next", "moved"
	for name, tc := range map[string]struct {
		said string
		want string
	}{
		"one gateway":                                  {"A@10, A@10", same},
		"several":                                      {"A@10, A@12", same},
		"several, the older one later":                 {"A@12, A@10", same},
		"one that has started again":                   {"A@10 after Z@5, A@20", same},
		"one that knows what was before":               {"A@10, A@12 after Z@5", same},
		"both do":                                      {"A@10 after Z@4, A@12 after Z@5", same},
		"one that has started and an old one":          {"A@20, A@10 after Z@5", same},
		"the ring came back":                           {"A@10, A@20 after B@15", moved},
		"the ring came back, seen":                     {"A@10, B@15 after A@10, A@20 after B@15", moved},
		"the ring came back, half seen":                {"B@15 after A@10, A@20 after B@15", next},
		"in between others":                            {"A@10, A@14, A@20 after B@12", moved},
		"another before":                               {"A@10 after Z@5, A@12 after Y@6", moved},
		"since is the same":                            {"A@10, A@20 after B@10", moved},
		"a successor":                                  {"A@10, B@20 after A@10", next},
		"a successor by one that was not heard":        {"A@10, B@20 after A@9", next},
		"a successor by one that may have come back":   {"A@10, B@20 after A@11", moved},
		"a successor of several":                       {"A@10, A@12, B@20 after A@12", next},
		"a successor by one that has started":          {"A@10, B@20", moved},
		"another says what was before":                 {"A@10, B@20, B@21 after A@10, B@20", next},
		"said before":                                  {"B@20 after A@10, A@10", next},
		"a gateway that lags":                          {"A@10, B@20 after A@10, A@12", same},
		"and the ring after":                           {"B@20 after A@10, A@12", next},
		"one that lags and starts":                     {"A@10, B@20 after A@10, A@25", moved},
		"two rings later":                              {"A@10, B@20 after A@10, C@30 after B@20", moved},
		"two rings later, not seen":                    {"A@10, C@30 after B@20", moved},
		"a gateway that left one out":                  {"A@10, B@20 after A@10, C@30 after A@10", moved},
		"that it did shows later":                      {"A@10, C@30 after A@10, B@20 after A@10, C@30 after A@10", moved},
		"one before it came back":                      {"A@10, B@20 after A@10, A@30 after B@20, B@20 after A@10", next},
		"the one after it came back":                   {"A@30 after B@20, B@40 after A@30, A@50 after B@40, B@40 after A@30", next},
		"there and back":                               {"B@20 after A@10, A@30 after B@20, B@40 after A@30", moved},
		"one that has started is placed again":         {"A@30 after B@20, A@10, A@31", same},
		"one that has started, and the ring came back": {"A@10, A@25, A@22 after B@20, A@25", moved},
		"and the two agree":                            {"A@10, A@25, A@22 after B@20, A@25, A@25, A@22 after B@20", moved},
		"one before it came back, not heard till now":  {"A@30 after B@20, A@10", moved},
		"starts as the ring before begins elsewhere":   {"A@10, A@30 after B@20, A@20", moved},
		"a successor that overlaps":                    {"A@10, A@25, B@20 after A@10", moved},
		"what is known stays, whatever overlaps":       {"A@10, A@25, B@20 after A@10, A@10", same},
		"the newest that fits":                         {"A@10 after Z@5, A@20 after Y@6, A@15", moved},
		"who knew what was before is not placed again": {"A@10 after Z@5, A@15 after Z@6, A@25, A@22 after B@20, B@20 after A@15", next},
		"nobody says":                                  {"A@0, A@0", moved},
	} {
		t.Run(name, func(t *testing.T) {
			var p commit.Periods
			var ns []uint8
			for text := range strings.SplitSeq(tc.said, ", ") {
				ns = append(ns, p.Of(said(t, text)))
			}
			then, now := ns[0], ns[len(ns)-1]
			got := moved
			if !p.Moved(then, now) {
				if got = next; then == now {
					got = same
				}
			}
			if got != tc.want {
				t.Errorf("got %s, want %s: %v", got, tc.want, ns)
			}
			if p.Moved(now, then) != p.Moved(then, now) {
				t.Error("it is another thing the other way round")
			}
		})
	}
	var p commit.Periods
	if p.Of(points.Route{}) != 0 || p.Of(said(t, "A@10 after B@10")) != 0 || !p.Moved(0, 0) || !p.Moved(0, 1) || !p.Moved(7, 7) {
		t.Error("of what was not said something is known")
	}
	if n := p.Of(said(t, "A@10")); n == 0 || p.Moved(n, n) || !p.Moved(0, n) || !p.Moved(n, 0) {
		t.Errorf("number %d of the first period", n)
	}
	if twins := p.Of(said(t, "A@22 after B@20")); twins == 0 || twins != p.Of(said(t, "A@25")) {
		t.Error("a gateway that starts is not in the latest period")
	}
}

// fleet is gateways that use rings one after the other, and what they send to one worker.
type fleet struct {
	epochs []uint64 // of the rings
	began  []int64  // when the first gateway may use each
	has    []bool   // whether the worker is a member of each
	lag    int64    // how much later the last one does: less than a ring lasts
	sent   []sending
}

// sending is a batch on its way.
type sending struct {
	route   points.Route
	ring    int
	arrives int64
}

// plan is what a fleet is like.
type plan struct {
	rings, gateways, alphabet, batches int
	always                             bool    // the worker is in every ring, and each gateway sends by each as soon as it uses it
	restarts                           float64 // by gateway and ring
}

func newFleet(r *rand.Rand, p plan) *fleet {
	f := &fleet{}
	const shortest = 40
	f.lag = r.Int64N(shortest)
	at := int64(1000)
	for i := range p.rings {
		epoch := uint64(1 + r.IntN(p.alphabet))
		for i > 0 && epoch == f.epochs[i-1] {
			epoch = uint64(1 + r.IntN(p.alphabet))
		}
		f.epochs, f.began = append(f.epochs, epoch), append(f.began, at)
		f.has = append(f.has, p.always || r.IntN(4) != 0)
		at += shortest + r.Int64N(40)
	}
	f.began = append(f.began, at, at+shortest)
	for range p.gateways {
		f.live(r, p)
	}
	slices.SortStableFunc(f.sent, func(a, b sending) int { return cmp.Compare(a.arrives, b.arrives) })
	return f
}

// live is the life of a gateway.
func (f *fleet) live(r *rand.Rand, p plan) {
	var using points.Route // zero while it is down
	ring := -1
	send := func(at int64) {
		if using.Since == 0 || !f.has[ring] {
			return
		}
		arrives := at
		if !p.always && r.IntN(3) == 0 {
			arrives += r.Int64N(f.began[ring+2] - at) // before anybody uses the ring after the next
		}
		f.sent = append(f.sent, sending{using, ring, arrives})
	}
	use := func(i int, at int64) {
		was := using
		using = points.Route{ID: f.epochs[i], Epoch: f.epochs[i], Since: at, Previous: was.Epoch, PreviousSince: was.Since}
		ring = i
		if p.always {
			send(at)
		}
	}
	first := 0
	if !p.always {
		first = r.IntN(min(3, p.rings)) // it is not there from the beginning
	}
	for i := first; i < p.rings; i++ {
		at, end := f.began[i], f.began[i+1]
		adopts := at + r.Int64N(f.lag+1)
		events := []int64{adopts}
		for range p.batches {
			events = append(events, at+r.Int64N(end-at))
		}
		stops, starts := int64(-1), int64(-1)
		if r.Float64() < p.restarts {
			stops = at + r.Int64N(end-at)
			starts = stops + r.Int64N(20)
			events = append(events, stops, starts)
		}
		slices.Sort(events)
		for _, now := range events {
			if now >= end {
				break // down until the next ring: it starts with that
			}
			switch now {
			case stops:
				using, stops = points.Route{}, -1
			case starts:
				// One that starts with a ring that others have left is later than Periods relies upon. Where neither that nor the
				// next is there more than once it shows.
				if now < adopts && i > 0 && r.IntN(2) == 0 && !slices.Contains(f.epochs[:i], f.epochs[i]) && !slices.Contains(f.epochs[i:], f.epochs[i-1]) {
					use(i-1, now)
				} else {
					use(i, now)
				}
				starts = -1
			case adopts:
				if ring < i && (using.Since != 0 || starts < 0) {
					use(i, max(now, using.Since+1))
				}
			default:
				send(now)
			}
		}
	}
}

// heard plays what comes in, but for what leaves out no more than Periods relies upon: a gateway that has just started with a ring that
// was there before is heard only after another gateway has told the worker what was before it. It calls check for each batch.
func (f *fleet) heard(p *commit.Periods, check func(s *sending, number uint8)) {
	told, first := map[int]bool{}, map[uint64]int{}
	for i, epoch := range f.epochs {
		if _, ok := first[epoch]; !ok {
			first[epoch] = i
		}
	}
	for i := range f.sent {
		s := &f.sent[i]
		if s.route.PreviousSince == 0 && first[s.route.Epoch] != s.ring && !told[s.ring] {
			continue
		}
		told[s.ring] = told[s.ring] || s.route.PreviousSince != 0
		check(s, p.Of(s.route))
	}
}

// seeds is how many fleets of each sort there are.
func seeds(t *testing.T) uint64 {
	if testing.Short() {
		return 2000
	}
	return 10_000
}

// Who knows all rings in their order knows how many changes lie between two batches. That there is at most one is never said where there
// are more.
func TestPeriodsAreNeverWrong(t *testing.T) {
	neighbours, moved, wrongly := 0, 0, 0
	for seed := range seeds(t) {
		r := rand.New(rand.NewPCG(seed, 1))
		f := newFleet(r, plan{
			rings: 1 + r.IntN(12), gateways: 1 + r.IntN(4), alphabet: 2 + r.IntN(3), batches: r.IntN(8),
			restarts: []float64{0, 0.2, 0.7}[r.IntN(3)],
		})
		var p commit.Periods
		rings := map[uint8]map[int]bool{} // by number
		f.heard(&p, func(s *sending, now uint8) {
			if now == 0 {
				t.Fatalf("seed %d: %+v has no number", seed, s)
			}
			if rings[now] == nil {
				rings[now] = map[int]bool{}
			}
			rings[now][s.ring] = true
			for then, all := range rings {
				may := p.Moved(then, now)
				for ring := range all {
					changes := max(ring-s.ring, s.ring-ring)
					switch {
					case !may && changes > 1:
						t.Fatalf("seed %d: %d changes from ring %d (%d) to ring %d (%d) by %+v", seed, changes, ring, then, s.ring, now, s.route)
					case may && changes > 1:
						moved++
					case may:
						wrongly++
					case changes == 1:
						neighbours++
					}
				}
			}
		})
	}
	t.Logf("%d times next to each other, %d times moved, %d times said to be though not", neighbours, moved, wrongly)
	if neighbours < wrongly/2 || neighbours == 0 || moved == 0 {
		t.Error("little is known")
	}
}

// Where all gateways are heard by every ring, and none starts, all is known.
func TestPeriodsKnowAllThatIsSaid(t *testing.T) {
	for seed := range seeds(t) {
		r := rand.New(rand.NewPCG(seed, 2))
		f := newFleet(r, plan{rings: 1 + r.IntN(12), gateways: 1 + r.IntN(4), alphabet: 2 + r.IntN(3), batches: r.IntN(8), always: true})
		var p commit.Periods
		numbers := map[int]uint8{}
		f.heard(&p, func(s *sending, now uint8) {
			if n, ok := numbers[s.ring]; ok && n != now {
				t.Fatalf("seed %d: ring %d has the numbers %d and %d", seed, s.ring, n, now)
			}
			numbers[s.ring] = now
			for ring, then := range numbers {
				if changes := max(ring-s.ring, s.ring-ring); p.Moved(then, now) != (changes > 1) {
					t.Fatalf("seed %d: %d changes from ring %d (%d) to ring %d (%d) by %+v", seed, changes, ring, then, s.ring, now, s.route)
				}
			}
		})
	}
}

// Gateways start again and again, at all times and heard in any order, and the ring stays.
func TestPeriodsOfAFleetThatDoesNotChange(t *testing.T) {
	for seed := range seeds(t) {
		r := rand.New(rand.NewPCG(seed, 3))
		var p commit.Periods
		if r.IntN(2) == 0 { // it did change once
			for range 1 + r.IntN(3) {
				p.Of(points.Route{ID: 2, Epoch: 2, Since: 1 + r.Int64N(100), Previous: 3, PreviousSince: 1})
			}
			p.Of(points.Route{ID: 1, Epoch: 1, Since: 200 + r.Int64N(100), Previous: 2, PreviousSince: 1 + r.Int64N(100)})
		}
		first := uint8(0)
		for range 50 {
			route := points.Route{ID: 1, Epoch: 1, Since: 200 + r.Int64N(100_000)}
			now := p.Of(route)
			if first == 0 {
				first = now
			}
			if now != first || p.Moved(first, now) {
				t.Fatalf("seed %d: period %d, and %d of %+v", seed, first, now, route)
			}
		}
	}
}

// Numbers come again, but none while a stream may remember it.
func TestPeriodsUseNumbersAgain(t *testing.T) {
	for _, sweeps := range []bool{true, false} {
		t.Run(fmt.Sprintf("sweeps=%v", sweeps), func(t *testing.T) {
			var p commit.Periods
			route := points.Route{}
			ring := 0
			next := func() uint8 {
				ring++
				epoch := uint64(1 + ring%3)
				route = points.Route{ID: epoch, Epoch: epoch, Since: int64(10 * ring), Previous: route.Epoch, PreviousSince: route.Since}
				return p.Of(route)
			}
			streams := map[int]uint8{} // one that was touched in each ring, and in no other
			swept := 0
			for ring < 2000 {
				now := next()
				if (now == 0) != (!sweeps && ring > 255) {
					t.Fatalf("ring %d has the number %d", ring, now)
				}
				streams[ring] = now
				for then, number := range streams {
					if may, want := p.Moved(number, now), number == 0 || now == 0 || then < ring-1; may != want {
						t.Fatalf("from ring %d (%d) to %d (%d): %v", then, number, ring, now, may)
					}
					if dead := number == 0 || then <= ring-128 && now != 0; p.Moved(number, number) != dead && now != 0 {
						t.Fatalf("at ring %d, of ring %d (%d): dead is %v", ring, then, number, !dead)
					}
				}
				if due := p.Due(); due != (ring-swept > 255-64) {
					t.Fatalf("ring %d, swept up to %d: due is %v", ring, swept, due)
				} else if due && sweeps {
					swept = ring - 128
					p.Sweep(func(stale *[256]bool) {
						streams[ring+1] = next() // all goes on
						for then, number := range streams {
							if number != 0 && stale[number] != (then <= swept) {
								t.Fatalf("of ring %d, at %d: stale is %v", then, ring, stale[number])
							}
							if stale[number] {
								streams[then] = 0
							}
						}
					})
				}
			}
			if !sweeps {
				p.Sweep(func(*[256]bool) {})
				if next() == 0 {
					t.Error("no number after sweeping")
				}
			}
		})
	}
}

// Whoever makes up rings is not waited for.
func TestPeriodsOfMadeUpRings(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 4))
	var p commit.Periods
	for range 100_000 {
		n := p.Of(points.Route{ID: 1, Epoch: r.Uint64N(100), Since: r.Int64(), Previous: r.Uint64N(100), PreviousSince: r.Int64N(3) * r.Int64N(1<<61)})
		p.Moved(n, uint8(r.Uint32()))
		if p.Due() && r.IntN(1000) == 0 {
			p.Sweep(func(*[256]bool) {})
		}
	}
}

func TestPeriodsTogether(t *testing.T) {
	var p commit.Periods
	var wg sync.WaitGroup
	for g := range int64(4) {
		wg.Go(func() {
			route := points.Route{}
			then := uint8(0)
			for ring := range int64(300) {
				epoch := uint64(1 + ring%3)
				route = points.Route{ID: epoch, Epoch: epoch, Since: 100*(ring+1) + g, Previous: route.Epoch, PreviousSince: route.Since}
				for range 10 {
					now := p.Of(route)
					p.Moved(then, now)
					then = now
				}
				if p.Due() {
					p.Sweep(func(*[256]bool) {})
				}
			}
		})
	}
	wg.Wait()
}

func TestPeriodsAllocateNothing(t *testing.T) {
	var p commit.Periods
	routes := []points.Route{said(t, "A@10"), said(t, "A@12 after Z@5"), said(t, "B@20 after A@10"), said(t, "A@13")}
	ns := make([]uint8, len(routes))
	for range 2 {
		for i, r := range routes {
			ns[i] = p.Of(r)
		}
	}
	if allocs := testing.AllocsPerRun(100, func() {
		for i, r := range routes {
			if n := p.Of(r); n != ns[i] || p.Moved(ns[0], n) {
				t.Fatal(n, ns)
			}
		}
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkPeriods(b *testing.B) {
	var p commit.Periods
	r := said(b, "A@10 after Z@5")
	b.Run("of", func(b *testing.B) {
		for b.Loop() {
			p.Of(r)
		}
	})
	n := p.Of(r)
	b.Run("moved", func(b *testing.B) {
		for b.Loop() {
			p.Moved(n, n)
		}
	})
}

// A period began when the first of its gateways says, whoever is heard first.
func TestPeriodsBegan(t *testing.T) {
	var p commit.Periods
	rolled := points.Route{ID: 1, Epoch: 7, Since: 5000}
	n := p.Of(rolled)
	if began := p.Began(n); began != 5000 {
		t.Fatalf("began at %d", began)
	}
	if again := p.Of(points.Route{ID: 1, Epoch: 7, Since: 1000}); again != n || p.Began(n) != 1000 {
		t.Fatalf("period %d, not %d, began at %d", again, n, p.Began(n))
	}
	if p.Began(0) != 0 {
		t.Fatal("the period of none has begun")
	}
}
