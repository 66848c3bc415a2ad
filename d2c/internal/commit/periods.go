// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/deltaring/deltaring/d2c/internal/points"
)

const (
	numbers = 255 // of periods, from 1
	alive   = 128 // periods that are told apart: the newest
	spare   = 64  // numbers that are left when Due asks for more

	recentRoutes = 256
)

// Periods tells whether a stream that comes again after a while may have been elsewhere meanwhile. A ring that changes once moves
// streams one way: a worker that has a stream before and after had it all the time. One that changes twice may move it away and
// back.
//
// A period is the time in which gateways use one ring. Each batch belongs to one, by its route; a stream remembers that of the batch
// which touched it last, by its number. Zero is the number of none: of what is under it nothing is known. The zero Periods is
// ready for use, and safe for concurrent use.
//
// # How periods are told apart
//
// A gateway says since when it uses its ring (since), and which one it used directly before, since when (previous); when it starts
// it has forgotten that. Gateways begin to use a ring at different times. A route belongs to a period if
//
//   - its ring is the same;
//   - its since is later than what is said of the ring before the period;
//   - the previous ring that it tells of, if any, is that ring, and began before the period did: one that began later shows that
//     the period's ring went, and came back;
//   - and nothing is known to have begun between it and the period.
//
// The newest that fits is taken; if none does it is the first of a new period. What is said of a period is put together, whoever
// says it and when. A period follows another directly if they are next to each other by since, the one before is the ring that
// is said to be previous, and that began no later than the latest since there.
//
// # What is relied upon
//
// All gateways use the same rings in the same order, by clocks that agree, and each ring lasts longer than it takes until all use
// it, and until what was routed by the one before has arrived. Where that is not so and it shows, the answer is that the ring has
// moved. It need not show where a gateway leaves out a ring that others use, or starts as a ring comes back: it does not say what was
// before, and until another one does it is taken to be in the period before the ring went.
type Periods struct {
	recent [recentRoutes]atomic.Pointer[placed] // by hash
	// links has, by number, zero if the period is not alive, and otherwise isAlive with the number of the period that it
	// follows directly, if that is known.
	links [numbers + 1]atomic.Uint32
	// firsts has, by number, the earliest since that is known of a period.
	firsts [numbers + 1]atomic.Int64

	mu      sync.Mutex
	made    uint64   // periods so far: number says which number the n-th has
	swept   uint64   // up to that of this one nobody has a number any more
	periods []period // those alive, by first
}

const isAlive = 1 << 8

// placed is a route, and the period that it belongs to.
type placed struct {
	route  points.Route
	number uint8
}

type period struct {
	nth   uint64
	epoch uint64
	// The earliest and latest since, and the latest of those who know what was before.
	first, last, informed int64
	// The ring before, and the earliest and latest since of that; zero if nobody has said.
	previous         uint64
	earliest, latest int64
}

func number(nth uint64) uint8 { return uint8(1 + (nth-1)%numbers) }

// Of returns the number of the period that a route belongs to, whatever the member is called. It is zero if the route does not say
// since when its ring is used, and if there are no numbers left: see Sweep.
func (p *Periods) Of(r points.Route) uint8 {
	if r.ID == 0 || r.Since <= 0 || r.PreviousSince >= r.Since {
		return 0
	}
	recent := &p.recent[slotOf(&r)]
	if at := recent.Load(); at != nil && at.route == r {
		return at.number
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.place(&r)
	if n != 0 {
		recent.Store(&placed{r, n})
	}
	return n
}

func slotOf(r *points.Route) uint64 {
	hi, lo := bits.Mul64(r.ID^uint64(r.Since), 0x9e3779b97f4a7c15)
	return (hi ^ lo) % recentRoutes
}

// Moved reports whether the ring may have changed more than once between the batches of two periods.
func (p *Periods) Moved(then, now uint8) bool {
	a, b := p.links[then].Load(), p.links[now].Load()
	return a == 0 || b == 0 || then != now && uint8(a) != now && uint8(b) != then
}

// Began returns when a period did, in Unix milliseconds, as far as any gateway has said; zero of none.
func (p *Periods) Began(n uint8) int64 { return p.firsts[n].Load() }

// Newest returns the number of the period that began last; zero if there is none.
func (p *Periods) Newest() uint8 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.periods) == 0 {
		return 0
	}
	return number(p.periods[len(p.periods)-1].nth)
}

// Due reports whether numbers are about to run out, so that Sweep is to be called at the next occasion. Sweeping costs a visit to
// every stream: a sender that makes up rings must not decide how often that is. While there are no numbers all has moved.
func (p *Periods) Due() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.made+spare > p.swept+numbers
}

// Sweep has numbers used again. What is in a period older than the newest 128 has moved in any case; forget is to make zero
// of these numbers wherever a stream remembers one, and until it has returned they are not used again. A batch on its way may
// still bring one: it is to be done before 127 more periods have begun.
func (p *Periods) Sweep(forget func(stale *[256]bool)) {
	var stale [256]bool
	p.mu.Lock()
	upTo := max(p.made, alive) - alive
	for nth := p.swept + 1; nth <= upTo; nth++ {
		stale[number(nth)] = true
	}
	p.mu.Unlock()
	forget(&stale)
	p.mu.Lock()
	p.swept = max(p.swept, upTo)
	p.mu.Unlock()
}

// place finds the period of a route, or makes it.
func (p *Periods) place(r *points.Route) uint8 {
	for i := len(p.periods) - 1; i >= 0; i-- {
		if p.fits(i, r) {
			q := &p.periods[i]
			q.join(r)
			p.link()
			return number(q.nth)
		}
	}
	if p.made == p.swept+numbers {
		return 0
	}
	p.made++
	q := period{nth: p.made, epoch: r.Epoch, first: r.Since, last: r.Since}
	q.join(r)
	p.part(&q)
	p.periods = slices.DeleteFunc(p.periods, func(old period) bool { return old.nth+alive <= p.made })
	at := len(p.periods)
	for at > 0 && p.periods[at-1].first > q.first {
		at--
	}
	p.periods = slices.Insert(p.periods, at, q)
	p.link()
	for i := range p.recent { // some may belong to it
		p.recent[i].Store(nil)
	}
	return number(q.nth)
}

// fits reports whether a route belongs to a period.
func (p *Periods) fits(i int, r *points.Route) bool {
	q := &p.periods[i]
	if q.epoch != r.Epoch || r.Since <= q.latest {
		return false
	}
	if r.PreviousSince != 0 && (r.PreviousSince >= q.first || q.earliest != 0 && r.Previous != q.previous) {
		return false
	}
	if q.first <= r.Since && r.Since <= q.last {
		return true
	}
	from, to := min(q.first, r.Since), max(q.last, r.Since)
	for j := range p.periods {
		if other := &p.periods[j]; j != i && other.between(q.epoch, from, to) {
			return false
		}
	}
	return true
}

// between reports whether the period, or a ring other than that of epoch that was before it, has begun from then to then.
func (q *period) between(epoch uint64, from, to int64) bool {
	return q.first <= to && q.last >= from || q.previous != epoch && q.earliest <= to && q.latest >= from
}

// join notes what a route says of its period.
func (q *period) join(r *points.Route) {
	q.first, q.last = min(q.first, r.Since), max(q.last, r.Since)
	if r.PreviousSince == 0 {
		return
	}
	q.informed = max(q.informed, r.Since)
	if q.earliest == 0 {
		q.previous, q.earliest = r.Previous, r.PreviousSince
	}
	q.earliest, q.latest = min(q.earliest, r.PreviousSince), max(q.latest, r.PreviousSince)
}

// part takes from older periods of the same ring what a new one shows to be its own: gateways that had just started were taken to
// be in those, and will be placed again.
func (p *Periods) part(q *period) {
	for i := range p.periods {
		if old := &p.periods[i]; old.epoch == q.epoch && old.first <= q.latest && old.last > q.latest {
			old.last = max(old.first, old.informed)
		}
	}
}

// link publishes which periods are alive, and which follow which.
func (p *Periods) link() {
	var links [numbers + 1]uint32
	for i := range p.periods {
		q := &p.periods[i]
		link := uint32(isAlive)
		if i > 0 && q.follows(&p.periods[i-1]) {
			link |= uint32(number(p.periods[i-1].nth))
		}
		links[number(q.nth)] = link
	}
	for i := range p.periods {
		p.firsts[number(p.periods[i].nth)].Store(p.periods[i].first)
	}
	for n, link := range links {
		if p.links[n].Load() != link {
			p.links[n].Store(link)
		}
	}
}

// follows reports whether q is known to be directly after the period before it.
func (q *period) follows(before *period) bool {
	return q.earliest != 0 && q.previous == before.epoch && q.earliest <= before.last && before.last < q.first
}
