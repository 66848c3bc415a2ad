// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package fold

import (
	"fmt"
	"maps"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
)

// The model counts, for each place, what is there; a place is a bucket or zero.
type place struct {
	sign  int // 0 and 1 as of the ranges, or zeroPlace
	index int64
}

var zeroPlace = place{sign: -1}

type places map[place]*big.Int

func (p places) add(at place, n uint64) {
	if n == 0 {
		return
	}
	if p[at] == nil {
		p[at] = new(big.Int)
	}
	p[at].Add(p[at], new(big.Int).SetUint64(n))
}

func (p places) equal(o places) bool {
	return maps.EqualFunc(p, o, func(a, b *big.Int) bool { return a.Cmp(b) == 0 })
}

// minus returns the difference, or false if it would be negative somewhere.
func (p places) minus(o places) (places, bool) {
	d := places{}
	for at, n := range p {
		d[at] = new(big.Int).Set(n)
	}
	for at, n := range o {
		if d[at] == nil || d[at].Cmp(n) < 0 {
			return nil, false
		}
		if d[at].Sub(d[at], n); d[at].Sign() == 0 {
			delete(d, at)
		}
	}
	return d, true
}

// nowhere is the end of a zero bucket that covers nothing.
const nowhere = math.MinInt64

// boundOf returns the bucket of MaxScale that begins with a threshold, which must be such a bound.
func boundOf(threshold float64) int64 {
	switch threshold {
	case 0:
		return nowhere
	case math.MaxFloat64: // instead of 2^1024
		return maxExponent << MaxScale
	}
	k := int64(math.Round(math.Log2(threshold) * (1 << MaxScale)))
	if bucketBound(k, MaxScale) != threshold {
		panic(fmt.Sprint("no bound: ", threshold))
	}
	return k
}

// covered returns the first bucket of a scale that a zero bucket up to k, of MaxScale, does not cover, and whether it cuts it.
func covered(k int64, scale int) (next int64, cuts bool) {
	if k == nowhere {
		return nowhere, false
	}
	next = k >> (MaxScale - scale)
	return next, next<<(MaxScale-scale) != k
}

// spread puts what e counts to its places at a scale, all of buckets below next to zero.
func spread(e *Exponential, scale int, next int64) places {
	p := places{}
	p.add(zeroPlace, e.ZeroCount)
	for sign, b := range e.Ranges {
		for j, v := range b.Counts {
			if v == 0 {
				continue
			}
			index := (b.Offset + int64(j)) >> (e.Scale - scale)
			if index < next {
				p.add(zeroPlace, v)
			} else {
				p.add(place{sign, index}, v)
			}
		}
	}
	return p
}

// modelDifference is the difference by the rules, slowly.
func modelDifference(now, last *Exponential) (places, bool) {
	scale := now.Scale
	has := func(e *Exponential) bool { return !allZero(e.Ranges[0].Counts) || !allZero(e.Ranges[1].Counts) }
	if !has(now) {
		scale = last.Scale
	}
	if has(last) && last.Scale < scale || now.Count < last.Count {
		return nil, false
	}
	next, cuts := int64(nowhere), false
	if now.ZeroCount > 0 && now.ZeroThreshold != last.ZeroThreshold {
		if last.ZeroCount > 0 && last.ZeroThreshold > now.ZeroThreshold {
			return nil, false
		}
		if next, cuts = covered(boundOf(now.ZeroThreshold), scale); cuts {
			for at := range spread(last, scale, nowhere) {
				if at != zeroPlace && at.index == next {
					next++
					break
				}
			}
		}
	}
	if now.ZeroCount < last.ZeroCount && now.ZeroCount == 0 {
		return nil, false
	}
	return spread(now, scale, next).minus(spread(last, scale, next))
}

// checkExponential compares a difference with the model's, and has the package add it to last's total.
func checkExponential(t *testing.T, to, now, last *Exponential) (fell bool) {
	t.Helper()
	nowWas, lastWas := copyExponential(now), copyExponential(last)
	fell = to.Difference(now, last)
	if !sameExponential(now, &nowWas) || !sameExponential(last, &lastWas) {
		t.Fatalf("written to: %+v and %+v were %+v and %+v", now, last, nowWas, lastWas)
	}
	want, ok := modelDifference(now, last)
	if fell == ok {
		t.Fatalf("%+v minus %+v fell: %t", now, last, fell)
	}
	if fell {
		return true
	}
	if got := spread(to, to.Scale, nowhere); !got.equal(want) {
		t.Fatalf("%+v minus %+v is %+v, want %v", now, last, to, want)
	}
	for _, b := range to.Ranges {
		if n := len(b.Counts); n > 0 && (b.Counts[0] == 0 || b.Counts[n-1] == 0) || n == 0 && b.Offset != 0 {
			t.Fatalf("not trimmed: %+v", to)
		}
	}

	var total, whole ExponentialTotal
	total.Take(last)
	total.Restart()
	delta := copyExponential(to)
	total.Take(&delta)
	if o, ok := total.add(&Rules{}); !ok {
		t.Fatalf("adding %+v to %+v: %v", to, last, o)
	}
	whole.Take(now)
	whole.Restart()
	// A delta that counts no zeros does not widen the total's zero bucket, nor one without buckets lower its scale: the total may
	// tell more than now.
	scale := min(total.Scale, whole.Scale)
	next := int64(nowhere)
	for _, e := range []*Exponential{&total.Exponential, &whole.Exponential} {
		if e.ZeroCount > 0 {
			n, cuts := covered(boundOf(e.ZeroThreshold), scale)
			if cuts {
				n++
			}
			next = max(next, n)
		}
	}
	got, all := spread(&total.Exponential, scale, next), spread(&whole.Exponential, scale, next)
	if !got.equal(all) {
		t.Fatalf("%+v, and %+v more, are %+v, want %+v", last, to, total.Exponential, whole.Exponential)
	}
	aligned := to.ZeroThreshold == last.ZeroThreshold && to.Scale == last.Scale && to.ZeroCount > 0
	if aligned && !sameBuckets(&total.Exponential, &whole.Exponential) {
		t.Fatalf("%+v, and %+v more, are %+v, want just %+v", last, to, total.Exponential, whole.Exponential)
	}
	checkDistribution(t, &total.Distribution, &now.Distribution, &last.Distribution)
	return false
}

func sameBuckets(a, b *Exponential) bool {
	x, y := copyExponential(a), copyExponential(b)
	x.Distribution, y.Distribution = Distribution{}, Distribution{}
	return sameExponential(&x, &y)
}

// checkDistribution compares a total with what it should be.
func checkDistribution(t *testing.T, total, now, last *Distribution) {
	t.Helper()
	sums := now.Has & last.Has & HasSum
	if last.Count == 0 {
		sums = now.Has & HasSum
	} else if now.Count == last.Count {
		sums = last.Has & HasSum // the delta is of nothing, and the sum may be another if the producer began anew
		now = last
	}
	if total.Count != now.Count || total.Has&HasSum != sums {
		t.Fatalf("count %d and presence %d, want %d and %d", total.Count, total.Has, now.Count, sums)
	}
	if off := math.Abs(total.Sum - now.Sum); sums != 0 && off > 1e-14*(math.Abs(now.Sum)+math.Abs(last.Sum)) {
		t.Fatalf("sum %v, want %v", total.Sum, now.Sum)
	}
}

// observed is a value that a producer has recorded: in the bucket of MaxScale with this index, or zero.
type observed struct {
	zero  bool
	sign  int
	index int64
	moved bool // to the zero bucket, which has grown
}

func (o observed) value() float64 {
	if o.zero {
		return 0
	}
	v := bucketBound(o.index, MaxScale) * (1 + 1e-7) // a sixth of the bucket
	if o.sign == 1 {
		return -v
	}
	return v
}

// producer is an SDK with one stream, which it holds as the list of what was recorded.
type producer struct {
	values    []observed
	scale     int
	buckets   int64 // the most it has of each sign
	threshold int64 // end of the zero bucket, at MaxScale, or nowhere
	moves     bool  // a bucket that the zero bucket would cut goes to it whole, and else stays
	read      int   // values that the last reading had
	last      Exponential
	kept      Exponential      // last, as a total is kept that was restarted with it
	total     ExponentialTotal // of the deltas since it began
}

func (p *producer) begin(rng *rand.Rand) {
	*p = producer{scale: rng.IntN(MaxScale + 1), threshold: nowhere, moves: rng.IntN(2) == 0}
	p.buckets = []int64{4, 20, MaxBuckets, 400}[rng.IntN(4)]
}

func (p *producer) record(v observed) {
	if !v.zero && v.index < p.threshold {
		v.moved = true
	}
	p.values = append(p.values, v)
	p.shrink()
}

// shrink lowers the scale until all is within the buckets.
func (p *producer) shrink() {
	for ; ; p.scale-- {
		fit := true
		for sign := range 2 {
			lo, hi := int64(math.MaxInt64), int64(math.MinInt64)
			for _, v := range p.values {
				if !v.zero && !v.moved && v.sign == sign {
					lo, hi = min(lo, v.index>>(MaxScale-p.scale)), max(hi, v.index>>(MaxScale-p.scale))
				}
			}
			fit = fit && (hi < lo || hi-lo < p.buckets)
		}
		if fit {
			return
		}
	}
}

// widen lets the zero bucket grow.
func (p *producer) widen(threshold int64) {
	if threshold <= p.threshold {
		return
	}
	p.threshold = threshold
	next, cuts := covered(threshold, p.scale)
	if cuts && p.moves {
		next++
		p.threshold = next << (MaxScale - p.scale)
	}
	for i, v := range p.values {
		if v.index>>(MaxScale-p.scale) < next {
			p.values[i].moved = !v.zero
		}
	}
}

// now returns the cumulative value as its point is read.
func (p *producer) now() Exponential {
	var e Exponential
	e.Scale = p.scale
	if p.threshold != nowhere {
		e.ZeroThreshold = bucketBound(p.threshold, MaxScale)
	}
	buckets := [2]map[int64]uint64{{}, {}}
	for _, v := range p.values {
		if v.zero || v.moved {
			e.ZeroCount++
		} else {
			buckets[v.sign][v.index>>(MaxScale-p.scale)]++
		}
	}
	for sign, b := range buckets {
		if len(b) > 0 {
			keys := slices.Sorted(maps.Keys(b))
			lo, hi := keys[0], keys[len(keys)-1]
			e.Ranges[sign] = Buckets{lo, make([]uint64, hi-lo+1)}
			for index, n := range b {
				e.Ranges[sign].Counts[index-lo] = n
			}
		}
	}
	if e.ZeroCount == 0 {
		e.ZeroThreshold = 0
	}
	e.Distribution = describe(p.values)
	return e
}

// describe returns what a histogram of these values has besides buckets.
func describe(values []observed) Distribution {
	if len(values) == 0 {
		return Distribution{}
	}
	d := Distribution{Count: uint64(len(values)), Has: hasAll, Min: math.Inf(1), Max: math.Inf(-1)}
	for _, v := range values {
		d.Sum += v.value()
		d.Min, d.Max = min(d.Min, v.value()), max(d.Max, v.value())
	}
	return d
}

// spreadValues puts values to their places at a scale, those below next to zero.
func spreadValues(values []observed, scale int, next int64) places {
	p := places{}
	for _, v := range values {
		if index := v.index >> (MaxScale - scale); v.zero || index < next {
			p.add(zeroPlace, 1)
		} else {
			p.add(place{v.sign, index}, 1)
		}
	}
	return p
}

// zeroEnd is the end of e's zero bucket at a scale, a bucket that it cuts with it.
func zeroEnd(e *Exponential, scale int) int64 {
	if e.ZeroCount == 0 {
		return nowhere
	}
	next, cuts := covered(boundOf(e.ZeroThreshold), scale)
	if cuts {
		next++
	}
	return next
}

// Two producers record, lower their scales, widen their zero buckets, are read and begin anew as it happens. Each difference is what
// was recorded between two readings, and all of them are what was recorded by both.
func TestExponentialDifferencesOfHistories(t *testing.T) {
	outcomes := map[string]int{}
	for seed := range uint64(600) {
		rng := rand.New(rand.NewPCG(seed, 2))
		var producers [2]producer
		var both ExponentialTotal
		var all []observed // that the deltas have had
		var to, probe Exponential
		for i := range producers {
			producers[i].begin(rng)
		}
		wide := rng.IntN(2) == 0 // values from 2^-1000 to 2^1000, or near one
		for range 150 {
			p := &producers[rng.IntN(2)]
			switch rng.IntN(12) {
			default:
				v := observed{zero: rng.IntN(8) == 0, sign: rng.IntN(8) / 7}
				if v.index = int64(rng.NormFloat64() * (1 << 17)); wide {
					v.index = rng.Int64N(2000<<MaxScale) - 1000<<MaxScale
				}
				p.record(v)
			case 0:
				if rng.IntN(4) == 0 {
					threshold := int64(rng.NormFloat64()*(1<<16)) - 1<<17
					if rng.IntN(2) == 0 { // a bound of the scale
						threshold = threshold >> (MaxScale - p.scale) << (MaxScale - p.scale)
					}
					p.widen(threshold)
				}
			case 1:
				if rng.IntN(3) == 0 {
					last := p.last
					p.begin(rng)
					p.last = last // so that what the reader does not know of is tried too
				}
			case 2, 3:
				now := p.now()
				if p.read == 0 && p.last.Count > 0 { // begun anew; who does not know may find out
					fell := checkExponential(t, &probe, &now, &p.last)
					outcomes[fmt.Sprintf("begun anew, fell: %t", fell)]++
					p.last = Exponential{}
				}
				if checkExponential(t, &to, &now, &p.last) {
					t.Fatalf("seed %d: fell from %+v to %+v", seed, p.last, now)
				}
				recorded := p.values[p.read:]
				checkRecorded(t, &to, recorded)
				var kept ExponentialTotal
				kept.Take(&now)
				kept.Restart()
				if p.read == 0 {
					p.kept = Exponential{}
				}
				// With more buckets than a total has, a zero bucket that grows may let it keep a finer scale than before.
				if fell := checkExponential(t, &probe, &kept.Exponential, &p.kept); fell && p.buckets <= MaxBuckets {
					t.Fatalf("seed %d: fell from %+v to %+v", seed, p.kept, kept.Exponential)
				} else if !fell {
					checkRecorded(t, &probe, recorded)
				}
				p.kept = copyExponential(&kept.Exponential)
				if p.last.Scale != now.Scale && p.last.Count > 0 {
					outcomes["coarser"]++
				}
				if p.last.ZeroThreshold != now.ZeroThreshold && p.last.Count > 0 {
					outcomes["wider zero bucket"]++
				}
				// What is kept must not be what the next reading may write to.
				p.last, p.read = copyExponential(&now), len(p.values)
				for _, v := range recorded {
					v.moved = false
					all = append(all, v)
				}
				for _, total := range []*ExponentialTotal{&both, &p.total} {
					total.Take(&to)
					if total.Count == 0 {
						total.Restart()
					} else if o, ok := total.add(&Rules{}); !ok {
						t.Fatalf("seed %d: %v", seed, o)
					}
				}
				next := zeroEnd(&both.Exponential, both.Scale)
				if got, want := spread(&both.Exponential, both.Scale, next), spreadValues(all, both.Scale, next); !got.equal(want) {
					t.Fatalf("seed %d: %+v of both, want %v", seed, both.Exponential, want)
				}
				checkSum(t, &both.Distribution, describe(all))
				checkSum(t, &p.total.Distribution, now.Distribution)
			}
		}
	}
	t.Log(outcomes)
	for _, want := range []string{"begun anew, fell: true", "begun anew, fell: false", "coarser", "wider zero bucket"} {
		if outcomes[want] < 20 {
			t.Errorf("%s: only %d", want, outcomes[want])
		}
	}
}

// checkRecorded compares a delta with what was recorded, as far as its scale and its zero bucket tell values apart.
func checkRecorded(t *testing.T, delta *Exponential, recorded []observed) {
	t.Helper()
	next := zeroEnd(delta, delta.Scale)
	// A value that was recorded before the zero bucket grew over it is zero now.
	if got, want := spread(delta, delta.Scale, next), spreadValues(recorded, delta.Scale, next); !got.equal(want) {
		t.Fatalf("%+v, want %v", delta, want)
	}
	if delta.Count != uint64(len(recorded)) {
		t.Fatalf("count %d of %d", delta.Count, len(recorded))
	}
	if delta.Count > 0 && delta.Has&HasSum == 0 {
		t.Fatal("no sum")
	}
}

// checkSum compares counts and sums.
func checkSum(t *testing.T, got *Distribution, want Distribution) {
	t.Helper()
	scale := 0.0
	if want.Count > 0 {
		scale = max(math.Abs(want.Min), math.Abs(want.Max)) * float64(want.Count)
	}
	if got.Count != want.Count || want.Count > 0 && got.Has&HasSum == 0 || math.Abs(got.Sum-want.Sum) > 1e-12*scale {
		t.Fatalf("%+v, want %+v", got, want)
	}
}

// The same with bounds, and with sums.
func TestDifferencesOfHistories(t *testing.T) {
	bounds := []float64{-5, 0, 5, 10, 1000}
	type reading struct {
		histogram Histogram
		ints      Number
		doubles   Number
	}
	read := func(values []float64) reading {
		r := reading{ints: IntNumber(0), doubles: DoubleNumber(0)}
		h := &r.histogram
		h.Bounds, h.Counts = bounds, make([]uint64, len(bounds)+1)
		for i, v := range values {
			bucket, _ := slices.BinarySearch(bounds, v)
			h.Counts[bucket]++
			if i == 0 {
				h.Min, h.Max = v, v
			}
			h.Count, h.Sum, h.Min, h.Max, h.Has = h.Count+1, h.Sum+v, min(h.Min, v), max(h.Max, v), hasAll
			r.ints.Bits += uint64(int64(math.Abs(v)))
			r.doubles = DoubleNumber(r.doubles.Float() + v)
		}
		return r
	}
	fallen := 0
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var producers [2]struct {
			values []float64
			last   reading
			anew   bool
		}
		for i := range producers {
			producers[i].last = read(nil)
		}
		var all []float64
		var unread [2]int // values that are new
		total := read(nil)
		sum := HistogramTotal{Histogram: total.histogram}
		ints, doubles := SumTotal{Number: IntNumber(0)}, SumTotal{Number: DoubleNumber(0)}
		var to Histogram
		for range 200 {
			i := rng.IntN(2)
			p := &producers[i]
			switch rng.IntN(10) {
			default:
				p.values = append(p.values, math.Floor(rng.NormFloat64()*2000)/64)
				unread[i]++
			case 0:
				if rng.IntN(3) == 0 {
					p.values, unread[i], p.anew = nil, 0, true
				}
			case 1, 2:
				now := read(p.values)
				if p.anew {
					fell := to.Difference(&now.histogram, &p.last.histogram)
					want := false
					for k, n := range p.last.histogram.Counts {
						want = want || now.histogram.Counts[k] < n
					}
					if fell != want {
						t.Fatalf("seed %d: from %v to %v fell: %t", seed, p.last.histogram, now.histogram, fell)
					}
					if fell {
						fallen++
					}
					if _, fell := now.ints.Minus(p.last.ints, true); fell != (now.ints.Int() < p.last.ints.Int()) {
						t.Fatalf("seed %d: from %v to %v fell: %t", seed, p.last.ints, now.ints, fell)
					}
					p.last, p.anew = read(nil), false
				}
				if to.Difference(&now.histogram, &p.last.histogram) {
					t.Fatalf("seed %d: fell from %v to %v", seed, p.last.histogram, now.histogram)
				}
				recorded := p.values[len(p.values)-unread[i]:]
				want := read(recorded).histogram
				if to.Count != want.Count || to.Sum != want.Sum || !slices.Equal(to.Counts, want.Counts) { // sixty-fourths are exact
					t.Fatalf("seed %d: %+v, want %+v", seed, to, want)
				}
				if kept := p.last.histogram.Count == 0 && now.histogram.Count > 0; (to.Has&(HasMin|HasMax) != 0) != kept {
					t.Fatalf("seed %d: %+v after %+v", seed, to, p.last.histogram)
				}
				all, unread[i] = append(all, recorded...), 0
				sum.Take(&to)
				_, ok := sum.add(&Rules{})
				var fell, fellToo bool
				ints.Reduced, fell = now.ints.Minus(p.last.ints, true)
				doubles.Reduced, fellToo = now.doubles.Minus(p.last.doubles, false)
				_, ok1 := ints.add(nil)
				_, ok2 := doubles.add(nil)
				if !ok || fell || fellToo || !ok1 || !ok2 {
					t.Fatalf("seed %d: fell or did not fit", seed)
				}
				total = read(all)
				if sum.Count != total.histogram.Count || sum.Sum != total.histogram.Sum || !slices.Equal(sum.Counts, total.histogram.Counts) {
					t.Fatalf("seed %d: %+v, want %+v", seed, sum.Histogram, total.histogram)
				}
				if ints.Number != total.ints || doubles.Float() != total.doubles.Float() {
					t.Fatalf("seed %d: %v and %v, want %v and %v", seed, ints.Number, doubles.Number, total.ints, total.doubles)
				}
				p.last = now
			}
		}
	}
	if fallen < 100 {
		t.Errorf("only %d fell", fallen)
	}
}

// source reads the bytes of a fuzz input, and zeros behind them.
type source []byte

func (s *source) next() int64 {
	if len(*s) == 0 {
		return 0
	}
	b := (*s)[0]
	*s = (*s)[1:]
	return int64(b)
}

// count returns one that is small, mostly, or so large that two of them wrap.
func (s *source) count() uint64 {
	switch b := uint64(s.next()); {
	case b < 250:
		return b % 5
	default:
		return math.MaxUint64 - b%4
	}
}

// exponential reads a value as a point might have it, whatever SDKs do. It holds base too, brought to its scale, if that is there.
func (s *source) exponential(base *Exponential) (Exponential, bool) {
	var e Exponential
	e.Scale = MinScale + int(s.next()%(MaxScale-MinScale+1))
	if base != nil && s.next()%4 > 0 {
		e.Scale = max(base.Scale-int(s.next()%3), MinScale)
	}
	e.ZeroCount = s.count()
	if k := s.next(); k > 100 {
		e.ZeroThreshold = bucketBound((k-170)<<14, MaxScale)
	}
	for i := range e.Ranges {
		b := &e.Ranges[i]
		if n := s.next() % 24; n > 0 {
			b.Offset, b.Counts = s.next()-128, make([]uint64, n)
			if s.next() < 10 {
				b.Offset <<= 22
			}
			for j := range b.Counts {
				b.Counts[j] = s.count()
			}
		}
		if base == nil || base.Scale < e.Scale {
			continue
		}
		for j, v := range base.Ranges[i].Counts {
			index := (base.Ranges[i].Offset + int64(j)) >> (base.Scale - e.Scale)
			switch at := index - b.Offset; {
			case len(b.Counts) == 0:
				b.Offset, b.Counts = index, []uint64{v}
			case at < -1000 || at > 1000 || v > math.MaxUint32: // as if there were none
			case at < 0:
				b.Offset, b.Counts = index, append(make([]uint64, -at), b.Counts...)
				b.Counts[0] = v
			case at >= int64(len(b.Counts)):
				b.Counts = append(b.Counts, make([]uint64, at+1-int64(len(b.Counts)))...)
				fallthrough
			default:
				b.Counts[at] += v
			}
		}
	}
	if base != nil && s.next()%4 > 0 {
		e.ZeroCount += base.ZeroCount
	}
	if e.ZeroCount == 0 {
		e.ZeroThreshold = 0
	}
	// As where points are read: the count passes no uint64, and all buckets are useful.
	sum := new(big.Int)
	for _, n := range spread(&e, e.Scale, nowhere) {
		sum.Add(sum, n)
	}
	useful := e.Ranges[0].Useful(e.Scale) && e.Ranges[1].Useful(e.Scale)
	e.Count = sum.Uint64()
	if e.Count > 0 {
		e.Sum, e.Has = float64(s.next())-100, Presence(s.next())&HasSum
		if e.Has == 0 {
			e.Sum = 0
		}
	}
	for i := range e.Ranges {
		e.Ranges[i].trim()
	}
	return e, useful && sum.IsUint64()
}

// FuzzDifference takes any two exponential histograms from each other, as if they were of one producer, and any two histograms.
func FuzzDifference(f *testing.F) {
	for seed := range uint64(64) {
		rng := rand.New(rand.NewPCG(seed, 4))
		b := make([]byte, 40+rng.IntN(120))
		for i := range b {
			b[i] = byte(rng.IntN(250))
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := source(b)
		last, ok := s.exponential(nil)
		if !ok {
			return
		}
		now, ok := s.exponential(&last)
		if !ok {
			return
		}
		var to Exponential
		checkExponential(t, &to, &now, &last)
		checkExponential(t, &to, &last, &now)
		if checkExponential(t, &to, &now, &now) || to.Count > 0 || to.Buckets() > 0 || to.ZeroCount > 0 {
			t.Fatalf("%+v beyond itself is %+v", now, to)
		}
		for i := range now.Ranges {
			checkHistogram(t, &Histogram{Distribution: now.Distribution, Counts: now.Ranges[i].Counts},
				&Histogram{Distribution: last.Distribution, Counts: last.Ranges[i].Counts})
		}
	})
}

// checkHistogram is as checkExponential, for bounds that are as many as there are buckets.
func checkHistogram(t *testing.T, now, last *Histogram) {
	t.Helper()
	for _, h := range []*Histogram{now, last} {
		for i := range max(len(h.Counts)-1, 0) {
			h.Bounds = append(h.Bounds, float64(i))
		}
	}
	fits := now.Count >= last.Count
	if len(now.Counts) == len(last.Counts) {
		for i, v := range last.Counts {
			fits = fits && now.Counts[i] >= v
		}
	} else {
		fits = fits && last.Count == 0 && allZero(last.Counts)
	}
	var to Histogram
	if fell := to.Difference(now, last); fell == fits {
		t.Fatalf("%+v minus %+v fell: %t", now, last, fell)
	} else if fell {
		return
	}
	var total HistogramTotal
	total.Take(last)
	total.Restart()
	total.Take(&to)
	if o, ok := total.add(&Rules{}); !ok {
		t.Fatalf("adding %+v to %+v: %v", to, last, o)
	}
	if len(now.Counts) != len(last.Counts) && now.Nothing() {
		return // and the total keeps its bounds
	}
	if !slices.Equal(total.Counts, now.Counts) {
		t.Fatalf("%+v, and %+v more, are %+v, want %+v", last, to, total.Histogram, now)
	}
	checkDistribution(t, &total.Distribution, &now.Distribution, &last.Distribution)
}
