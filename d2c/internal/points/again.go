// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package points

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c/internal/fold"
	"github.com/deltaring/deltaring/d2c/internal/table"
	"github.com/deltaring/deltaring/streamid"
)

// A batch may have no points, and items that ask for the latest samples of their streams: see Again.

// Again names a stream whose latest sample is to be given out once more.
type Again struct {
	Family *table.Family
	Values []byte // of its attributes
	// Emitted is the time of its latest sample. It is left alone if that is another by then, unless it is Anyhow or AsItIs.
	Emitted int64
}

// Anyhow and AsItIs are no times. With the latter, the latest sample is given out at its own time, because it has not been given
// out yet.
const (
	Anyhow = -1
	AsItIs = -2
)

// AddAgain adds an item for a stream, whose sample is to be of a time, or a "no recorded value" point in its place.
func (b *Batch) AddAgain(id streamid.ID, kind table.Kind, at int64, mark bool, a Again) {
	it := Item{ID: id, Kind: kind, Marker: mark, Interval: fold.Interval{Time: at}, position: int32(len(b.outcomes)), flags: flagAgain}
	if a.Family.Monotonic {
		it.flags |= flagMonotonic
	}
	switch kind {
	case table.KindSum:
		it.point = int32(len(b.numbers))
		b.numbers = append(b.numbers, pmetric.NumberDataPoint{})
	case table.KindHistogram:
		it.point = int32(len(b.histograms))
		b.histograms = append(b.histograms, histogramPoint{})
	case table.KindExponentialHistogram:
		it.point = int32(len(b.exponentials))
		b.exponentials = append(b.exponentials, exponentialPoint{})
	}
	b.Items = append(b.Items, it)
	b.outcomes = append(b.outcomes, 0)
	b.again = append(b.again, a)
}

var noValue = pmetric.DefaultDataPointFlags.WithNoRecordedValue(true)

// Again reports whether the item asks for the latest sample of its stream.
func (it *Item) Again() bool { return it.flags&flagAgain != 0 }

// EmittedBefore returns the time that the stream's latest sample had when the item was made.
func (b *Batch) EmittedBefore(it *Item) int64 { return b.again[it.position].Emitted }

// Asks reports whether the batch has no points, but asks for samples.
func (b *Batch) Asks() bool { return len(b.again) > 0 }

// Named calls f for each tenant with what is given out of its streams, and stops at an error. It returns the number of samples
// that were given out by then.
func (b *Batch) Named(f func(tenant []streamid.TenantKey, md pmetric.Metrics) error) (n int, err error) {
	type out struct {
		tenant  []streamid.TenantKey
		md      pmetric.Metrics
		samples int
	}
	var outs []*out
	owners, metrics := map[string]*out{}, map[*table.Family]pmetric.Metric{}
	for i := range b.Items {
		it := &b.Items[i]
		sample, a := b.staged.samples[it.position], &b.again[it.position]
		if sample.Time == 0 {
			continue
		}
		o := owners[a.Family.Owner]
		if o == nil {
			o = &out{tenant: a.Family.Tenant, md: pmetric.NewMetrics()}
			owners[a.Family.Owner] = o
			outs = append(outs, o)
		}
		m, known := metrics[a.Family]
		if !known {
			rm := o.md.ResourceMetrics().AppendEmpty()
			a.Family.Metrics.ResourceMetrics().At(0).CopyTo(rm)
			m = rm.ScopeMetrics().At(0).Metrics().At(0)
			metrics[a.Family] = m
		}
		var attributes pcommon.Map
		switch it.Kind {
		case table.KindSum:
			dp := m.Sum().DataPoints().AppendEmpty()
			b.numbers[it.point], attributes = dp, dp.Attributes()
			if it.Marker {
				dp.SetFlags(noValue)
			} else {
				setNumber(dp, b.staged.numbers[it.point])
			}
		case table.KindHistogram:
			p := &b.histograms[it.point]
			p.HistogramDataPoint = m.Histogram().DataPoints().AppendEmpty()
			attributes = p.Attributes()
			if it.Marker {
				p.SetFlags(noValue)
			} else {
				p.write(&b.staged.histograms[it.point], true)
			}
		default:
			p := &b.exponentials[it.point]
			p.ExponentialHistogramDataPoint = m.ExponentialHistogram().DataPoints().AppendEmpty()
			attributes = p.Attributes()
			if it.Marker {
				p.SetFlags(noValue)
			} else {
				p.write(&b.staged.exponentials[it.point])
			}
		}
		b.setTimes(it, sample)
		a.Family.Attributes(a.Values, attributes)
		o.samples++
	}
	for _, o := range outs {
		if err := f(o.tenant, o.md); err != nil {
			return n, err
		}
		n += o.samples
	}
	return n, nil
}

// Name makes the name of the stream of an item, by its place in Items; tenant is whose the batch is.
func (b *Batch) Name(t *table.Table, w *table.Naming, item int32, tenant []streamid.TenantKey) table.Name {
	it, src := &b.Items[item], &b.sources[b.from[item]]
	src.Tenant = tenant
	var attributes pcommon.Map
	switch it.Kind {
	case table.KindSum:
		attributes = b.numbers[it.point].Attributes()
	case table.KindHistogram:
		attributes = b.histograms[it.point].Attributes()
	default:
		attributes = b.exponentials[it.point].Attributes()
	}
	if writer := b.Writer(it); writer != nil {
		src, attributes := writer.reduced(b.aggregates, src, attributes)
		return t.Name(w, &src, attributes)
	}
	return t.Name(w, src, attributes)
}
