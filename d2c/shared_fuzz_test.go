// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/streamid"
)

// recordCase is a stream and what it has been given.
type recordCase struct {
	name string
	md   []pmetric.Metrics
	many bool // writers
}

// recordCases are streams of every kind, and everything that a record may hold.
func recordCases() []recordCase {
	number := func(start, end float64, value float64) pmetric.Metrics {
		md := deltas(delta{"mixed", start, end, int64(value), false})
		if value != float64(int64(value)) {
			md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().At(0).SetDoubleValue(value)
		}
		return md
	}
	histogram := func(start, end float64, bounds []float64, counts ...uint64) pmetric.Metrics {
		md, m := oneMetric("histogram")
		m.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		dp := m.Histogram().DataPoints().AppendEmpty()
		dp.SetStartTimestamp(scriptTime(start))
		dp.SetTimestamp(scriptTime(end))
		dp.ExplicitBounds().FromRaw(bounds)
		dp.BucketCounts().FromRaw(counts)
		for _, n := range counts {
			dp.SetCount(dp.Count() + n)
		}
		dp.SetSum(1.5)
		dp.SetMin(0.25)
		dp.SetMax(1)
		return md
	}
	exponential := func(start, end float64, counts ...uint64) pmetric.Metrics {
		md, m := oneMetric("exponential")
		m.SetEmptyExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		dp := m.ExponentialHistogram().DataPoints().AppendEmpty()
		dp.SetStartTimestamp(scriptTime(start))
		dp.SetTimestamp(scriptTime(end))
		dp.SetScale(3)
		dp.SetZeroCount(2)
		dp.SetZeroThreshold(0.125)
		dp.Positive().SetOffset(-2)
		dp.Positive().BucketCounts().FromRaw(counts)
		dp.Negative().SetOffset(5)
		dp.Negative().BucketCounts().FromRaw(counts[:1])
		dp.SetCount(2 + counts[0])
		for _, n := range counts {
			dp.SetCount(dp.Count() + n)
		}
		return md
	}
	marker := deltas(delta{stream: "mixed", start: 10, end: 10, marker: true})
	return []recordCase{
		{"int", []pmetric.Metrics{number(1, 2, 5), number(2, 3, 1<<40)}, false},
		{"double", []pmetric.Metrics{number(1, 2, 5), number(2, 3, 0.5)}, false},
		{"gaps", []pmetric.Metrics{number(1, 2, 5), number(3, 4, 6), number(8, 9, 7), number(5, 6, 8)}, false},
		{"marked", []pmetric.Metrics{number(1, 2, 5), marker}, false},
		{"histogram", []pmetric.Metrics{histogram(1, 2, []float64{1, 2}, 3, 0, 1<<33)}, false},
		{"histogram without buckets", []pmetric.Metrics{histogram(1, 2, nil)}, false},
		{"restarted", []pmetric.Metrics{histogram(1, 2, []float64{1, 2}, 3, 0, 1), histogram(2, 3, []float64{1}, 3, 0)}, false},
		{"exponential", []pmetric.Metrics{exponential(1, 2, 1, 2, 3, 1<<50)}, false},
		{"many writers", []pmetric.Metrics{number(1, 2, 5), number(1.5, 3, 6), number(1.25, 2, 7), number(1, 4, 0.5)}, true},
		{"many writers of a histogram", []pmetric.Metrics{histogram(1, 2, []float64{1, 2}, 3, 0, 1), histogram(1, 2, []float64{1, 2}, 3, 1, 1)}, true},
		{"many writers, restarted", []pmetric.Metrics{histogram(1, 2, []float64{1, 2}, 3, 0, 1), histogram(1, 3, []float64{1}, 3, 1)}, true},
	}
}

func oneMetric(name string) (pmetric.Metrics, pmetric.Metric) {
	md := pmetric.NewMetrics()
	m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName(name)
	return md, m
}

func (c recordCase) config() d2c.Config {
	cfg := d2c.Config{LateWindow: time.Minute}
	if c.many {
		cfg.Writers = d2c.WritersMany
	}
	return cfg
}

func (c recordCase) converter(t testing.TB, st store.Shared) *d2c.Converter {
	t.Helper()
	now := time.Unix(scriptEpoch-1, 0) // the floor of a new store is a second later
	cfg := c.config()
	cfg.Now = func() time.Time { return now }
	conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: st, Owner: "golden"})
	now = time.Unix(scriptEpoch, 0)
	if err != nil {
		t.Fatal(err)
	}
	return conv
}

// record returns what the store has after the stream was given what it is given.
func (c recordCase) record(t testing.TB) (id streamid.ID, r rawRecord) {
	t.Helper()
	st := new(rawStore)
	conv := c.converter(t, st)
	for _, md := range c.md {
		if _, err := conv.Convert(context.Background(), clonedMetrics(md)); err != nil {
			t.Fatal(err)
		}
	}
	id = onlyShared(st.records)
	return id, st.records[id]
}

func clonedMetrics(md pmetric.Metrics) pmetric.Metrics {
	out := pmetric.NewMetrics()
	md.CopyTo(out)
	return out
}

const goldenTag = 0x0123456789abcdef

// TestSharedRecordFormat holds version 2 of the format to testdata/shared_v2.txt, in both directions, and what is read to version 1 in
// testdata/shared_v1.txt: it is what workers of all versions have in common. There all records have one tag.
func TestSharedRecordFormat(t *testing.T) {
	const file = "testdata/shared_v2.txt"
	if *update {
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s is there already: another format is another version, with a file of its own", file)
		}
		var b strings.Builder
		for _, c := range recordCases() {
			id, record := c.record(t)
			fmt.Fprintf(&b, "%s\t%v\t%x\n", c.name, id, sealShared(record.record, id, goldenTag))
		}
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cases := recordCases()
	for i, golden := range readSharedGolden(t, file) {
		c := cases[i]
		t.Run(c.name, func(t *testing.T) {
			id, record := c.record(t)
			if got := sealShared(record.record, id, goldenTag); !bytes.Equal(got, golden) {
				t.Errorf("writes %x\nwant   %x", got, golden)
			}
			c.goesOn(t, golden)
		})
	}
	for i, golden := range readSharedGolden(t, "testdata/shared_v1.txt") {
		t.Run("version 1, "+cases[i].name, func(t *testing.T) { cases[i].goesOn(t, golden) })
	}
}

// readSharedGolden returns the golden records of recordCases.
func readSharedGolden(t testing.TB, file string) (records [][]byte) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines, cases := strings.Split(strings.TrimSpace(string(text)), "\n"), recordCases()
	if len(lines) != len(cases) {
		t.Fatalf("%s: %d lines, want %d", file, len(lines), len(cases))
	}
	for i, c := range cases {
		fields := strings.Split(lines[i], "\t")
		golden, err := hex.DecodeString(fields[len(fields)-1])
		if err != nil {
			t.Fatal(err)
		}
		if id, _ := c.record(t); fields[0] != c.name || fields[1] != id.String() {
			t.Fatalf("%s: line is of %s, stream %s, want %s, stream %v", file, fields[0], fields[1], c.name, id)
		}
		records = append(records, golden)
	}
	return records
}

// goesOn asserts that what is read from a golden record goes on as what it was made of.
func (c recordCase) goesOn(t *testing.T, golden []byte) {
	id, _ := c.record(t)
	st := new(rawStore)
	st.put(id, rawRecord{goldenTag, golden})
	got := clonedMetrics(c.md[len(c.md)-1])
	result, err := c.converter(t, st).Convert(context.Background(), got)
	if err != nil || st.aside > 0 {
		t.Fatalf("%v, %d set aside", err, st.aside)
	}
	if c.name != "marked" && result.Count(d2c.Repeat) != 1 {
		t.Fatalf("a retry is %s", describeResult(result))
	}
	m := newModel(c.config())
	var want pmetric.Metrics
	for _, md := range append(c.md, c.md[len(c.md)-1]) {
		want, _ = m.convert(md)
	}
	if a, b := describeMetrics(got), describeMetrics(want); c.name != "marked" && a != b {
		t.Errorf("got  %s\nwant %s", a, b)
	}
}

func describeMetrics(md pmetric.Metrics) string {
	var parts []string
	forEachMetric(md, func(_ pmetric.ResourceMetrics, _ pmetric.ScopeMetrics, m pmetric.Metric) {
		for _, p := range deltaPoints(m) {
			parts = append(parts, fmt.Sprintf("(%d, %d] %s", p.start, p.time, describe(p.dp)))
		}
	})
	return strings.Join(parts, " ")
}

// TestSharedRecordSize says what a stream costs in the store, apart from its key: of a sum nothing that it could do without.
func TestSharedRecordSize(t *testing.T) {
	const (
		header   = 1 + 8                 // version, owner
		bounds   = 1                     // none
		state    = 4 + 1 + 3 + 1 + 5 + 5 // seen, flags, fingerprint; seen, start and last, beyond seen
		checksum = 8
		want     = header + bounds + state + checksum
	)
	for i, value := range []int{6, 8} { // 1<<40 + 5, and a float64
		c := recordCases()[i]
		if _, record := c.record(t); len(record.record) != want+value {
			t.Errorf("%s: %d bytes, want %d", c.name, len(record.record), want+value)
		}
	}
}

// FuzzSharedRecord finds any bytes in the store: as they are, and with a header and a checksum that are sound. They are
// set aside, or read as what a Converter could have written.
func FuzzSharedRecord(f *testing.F) {
	cases := recordCases()
	for i, golden := range readSharedGolden(f, "testdata/shared_v1.txt") {
		f.Add(uint8(i)|0x80, true, golden[9:len(golden)-8])
	}
	var ids []streamid.ID
	var headers [][]byte
	for i, c := range cases {
		id, record := c.record(f)
		ids = append(ids, id)
		headers = append(headers, record.record[:9])
		f.Add(uint8(i), false, sealShared(record.record, id, goldenTag))
		f.Add(uint8(i), true, record.record[9:len(record.record)-8])
		f.Add(uint8(i), false, record.record[:len(record.record)-1])
		f.Add(uint8(i), false, sealShared(newer(id, record).record, id, goldenTag))
	}
	f.Add(uint8(0), false, []byte{})
	f.Add(uint8(0), true, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, which uint8, sound bool, data []byte) {
		if len(data) > 1<<12 {
			return
		}
		i := int(which&0x7f) % len(cases)
		c, id := cases[i], ids[i]
		if sound {
			header := bytes.Clone(headers[i])
			header[0] = 2 - which>>7 // half of which is for version 1
			data = sealShared(append(append(header, data...), make([]byte, 8)...), id, goldenTag)
		}
		st := new(rawStore)
		st.put(id, rawRecord{goldenTag, bytes.Clone(data)})

		a, b := c.converter(t, st), c.converter(t, st)
		next := clonedMetrics(c.md[0])
		for _, p := range deltaPoints(next.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0)) {
			p.dp.SetStartTimestamp(scriptTime(100))
			p.dp.SetTimestamp(scriptTime(101))
		}
		var first string
		for n, conv := range []*d2c.Converter{a, b} {
			md := clonedMetrics(next)
			result, err := conv.Convert(context.Background(), md)
			if errors.Is(err, d2c.ErrVersion) && data[0] > 2 {
				if !bytes.Equal(st.records[id].record, data) {
					t.Fatal("the record of a newer version has changed")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if st.aside > 1 {
				t.Fatalf("%d set aside", st.aside)
			}
			if n == 0 {
				first = describeMetrics(md)
				if st.aside == 1 && result.Count(d2c.AddedFirst) != 1 {
					t.Fatalf("set aside, and %s", describeResult(result))
				}
				continue
			}
			// Whatever it was, what is there now is sound, and a retry is a repeat unless the point was dropped.
			if again := describeMetrics(md); again != first {
				t.Fatalf("a retry elsewhere gives %s, want %s", again, first)
			}
		}
		if r := st.records[id]; r.tag != 0 {
			if _, err := a.ReadShared(r.record, r.tag, id); err != nil {
				t.Fatal(err)
			}
		}
	})
}
