// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"fmt"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/streamid"
)

// ear holds the notices of a history to what it was sent.
type ear struct {
	notices []heard
}

type heard struct {
	kind    d2c.NoticeKind
	outcome d2c.Outcome
	points  uint64
	key     string
	time    uint64
	stream  d2c.Stream
}

// listen has a Converter of cfg tell, and look for duplicates, of which there are none in a history.
func listen(cfg *d2c.Config) *ear {
	e := new(ear)
	cfg.Duplicates = d2c.DuplicatesService
	cfg.OnNotice = func(n d2c.Notice) {
		rm := pmetric.NewResourceMetrics()
		n.Resource.CopyTo(rm.Resource())
		e.notices = append(e.notices, heard{
			n.Kind, n.Outcome, n.Points, metricKey(rm.Resource(), n.Scope, n.Metric) + attributesKey(n.Attributes), uint64(n.Time), n.Stream,
		})
	}
	return e
}

// check is called after each batch.
func (e *ear) check(in pmetric.Metrics, result d2c.Result, m *model) error {
	notices := e.notices
	e.notices = nil
	sent := map[string]map[uint64]bool{}
	for _, l := range m.sent(in) {
		if sent[l.key] == nil {
			sent[l.key] = map[uint64]bool{}
		}
		sent[l.key][l.time] = true
	}
	told := map[d2c.Outcome]bool{}
	for _, n := range notices {
		if !sent[n.key][n.time] && !(m.cfg.MissingTime == d2c.MissingTimeArrival && sent[n.key][0]) {
			return fmt.Errorf("told of %v at %d of %s, which was not sent", n.outcome, n.time, n.key)
		}
		if n.stream.Last != 0 && n.stream.ID == (streamid.ID{}) {
			return fmt.Errorf("told of a stream without an identity: %v", n.stream)
		}
		switch n.kind {
		case d2c.NoticeOutcome:
			if told[n.outcome] || result.Count(n.outcome) != n.points {
				return fmt.Errorf("told of %d that were %v, of %d", n.points, n.outcome, result.Count(n.outcome))
			}
			told[n.outcome] = true
		case d2c.NoticeFixedStart:
			if n.points > result.Count(d2c.AddedOverlap) || m.cfg.Overlap != d2c.OverlapInterpolate {
				return fmt.Errorf("told of %d that reach back, of %d", n.points, result.Count(d2c.AddedOverlap))
			}
		default:
			return fmt.Errorf("told of kind %d", n.kind)
		}
	}
	for o, n := range result.Counts() {
		if want := o.Dropped() || o == d2c.Covered; told[o] != want {
			return fmt.Errorf("%d were %v: told %v, want %v", n, o, told[o], want)
		}
	}
	return nil
}

type sentPoint struct {
	key  string
	time uint64
}

func (m *model) sent(md pmetric.Metrics) (points []sentPoint) {
	forEachMetric(md, func(rm pmetric.ResourceMetrics, sm pmetric.ScopeMetrics, metric pmetric.Metric) {
		for _, p := range deltaPoints(metric) {
			points = append(points, sentPoint{
				metricKey(rm.Resource(), sm.Scope(), metric) + attributesKey(p.dp.Attributes()), uint64(p.dp.Timestamp()),
			})
		}
	})
	return points
}
