// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// zeroPlace is where the zero of a life is.
type zeroPlace int

const (
	noZero zeroPlace = iota
	zeroAtStart
	zeroJustBefore
)

// modelZero is a sample of value zero, with the layout of a total.
type modelZero struct {
	start, time uint64
	like        amount
}

// latestBefore is the latest time at which a sample may have been given out of a stream that p opens.
func (m *model) latestBefore(p *modelPoint) uint64 {
	latest := max(m.gone, m.forwarded[p.key])
	if m.began < p.time {
		latest = max(latest, m.began)
	}
	return latest
}

// beginWithZero has the life that begins with p begin with a zero, if there is room after a time.
func (m *model) beginWithZero(s *modelStream, p *modelPoint, after uint64, unknown bool) {
	s.zero = noZero
	_, summary := p.dp.(pmetric.SummaryDataPoint)
	if !m.cfg.EmitZero || p.mayFall || summary {
		return
	}
	between := func(at uint64) bool { return at/nudge > after/nudge && at/nudge < s.emitted/nudge }
	justBefore := s.emitted > nudge && between(s.emitted-nudge)
	switch {
	case unknown && justBefore:
		s.start = s.emitted - nudge
		p.dp.SetStartTimestamp(pcommon.Timestamp(s.start))
		s.zero = zeroAtStart
	case unknown:
	case between(s.start) && s.emitted-s.start <= uint64(5*time.Minute):
		s.zero = zeroAtStart
	case justBefore && s.emitted-nudge >= s.start:
		s.zero = zeroJustBefore
	}
	s.giveZero(p)
}

// giveZero gives out the zero of the life before p.
func (s *modelStream) giveZero(p *modelPoint) {
	switch s.zero {
	case zeroAtStart:
		p.zero = &modelZero{s.start, s.start, s.total}
	case zeroJustBefore:
		p.zero = &modelZero{s.start, s.emitted - nudge, s.total}
	}
}

func (z *modelZero) write(dp, like dataPoint) {
	like.Attributes().CopyTo(dp.Attributes())
	dp.SetStartTimestamp(pcommon.Timestamp(z.start))
	dp.SetTimestamp(pcommon.Timestamp(z.time))
	nothing := z.like
	switch total := z.like.(type) {
	case number:
		dp := dp.(pmetric.NumberDataPoint)
		if dp.SetIntValue(0); total.isDouble {
			dp.SetDoubleValue(0)
		}
		return
	case explicit:
		total.buckets = make([]uint64, len(total.buckets))
		total.stats = stats{sum: optional{0, total.sum.ok}}
		nothing = total
	case exponential:
		total.zeros, total.pos, total.neg = 0, nil, nil
		total.stats = stats{sum: optional{0, total.sum.ok}}
		nothing = total
	}
	nothing.write(dp)
}

// putZeros puts zeros before the points that begin with one.
func putZeros(md pmetric.Metrics, points []*modelPoint) {
	of := map[any]*modelPoint{}
	for _, p := range points {
		of[p.dp] = p
	}
	forEachMetric(md, func(_ pmetric.ResourceMetrics, _ pmetric.ScopeMetrics, m pmetric.Metric) {
		switch m.Type() {
		case pmetric.MetricTypeSum:
			insert(m.Sum().DataPoints(), pmetric.NewNumberDataPointSlice(), of)
		case pmetric.MetricTypeHistogram:
			insert(m.Histogram().DataPoints(), pmetric.NewHistogramDataPointSlice(), of)
		case pmetric.MetricTypeExponentialHistogram:
			insert(m.ExponentialHistogram().DataPoints(), pmetric.NewExponentialHistogramDataPointSlice(), of)
		}
	})
}

func insert[P interface {
	dataPoint
	CopyTo(P)
}, S interface {
	Len() int
	At(int) P
	AppendEmpty() P
	CopyTo(S)
}](from, to S, of map[any]*modelPoint) {
	some := false
	for i := range from.Len() {
		p := of[from.At(i)]
		some = some || p != nil && p.zero != nil
	}
	if !some {
		return
	}
	for i := range from.Len() {
		dp := from.At(i)
		p := of[dp]
		if p.zero != nil {
			p.zero.write(to.AppendEmpty(), dp)
		}
		if !p.silent && !p.outcome.Dropped() {
			dp.CopyTo(to.AppendEmpty())
		}
		p.dp = nil // the copies may take its place
	}
	to.CopyTo(from)
}
