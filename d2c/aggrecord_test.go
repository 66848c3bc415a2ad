// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/d2c"
	"github.com/deltaring/deltaring/streamid"
)

// cumulativeOf makes the metrics of a batch cumulative ones of their producers.
func cumulativeOf(md pmetric.Metrics) pmetric.Metrics {
	forEachMetric(md, func(_ pmetric.ResourceMetrics, _ pmetric.ScopeMetrics, m pmetric.Metric) { makeCumulative(m) })
	return md
}

// together is one batch of several.
func together(batches ...pmetric.Metrics) pmetric.Metrics {
	md := pmetric.NewMetrics()
	for _, b := range batches {
		b.ResourceMetrics().MoveAndAppendTo(md.ResourceMetrics())
	}
	return md
}

// aggregateBatches have a writer of each sort in a total of each kind.
func aggregateBatches() []pmetric.Metrics {
	s := series("s")
	e := func(n uint64) func(pmetric.ExponentialHistogramDataPoint) {
		return expo(3, 0, 1, buckets{2, []uint64{n, 2}}, buckets{})
	}
	at := scriptEpoch
	sec := func(n int) float64 { return float64(at + n) }
	return []pmetric.Metrics{
		together(
			ofPod("a", s.int(sec(10), sec(20), 1), s.histogram(sec(10), sec(20), hist([]float64{1, 2}, 1, 2, 3)), s.exponential(sec(10), sec(20), e(1))),
			ofPod("b", s.int(sec(12), sec(22), 2), s.double(0, sec(20), 0.5), s.updown(sec(10), sec(20), -3)),
			cumulativeOf(ofPod("c", s.int(sec(5), sec(21), 100), s.histogram(sec(5), sec(21), hist([]float64{1, 2}, 10, 20, 30)), s.exponential(sec(5), sec(21), e(1<<40)))),
			cumulativeOf(ofPod("d", s.int(0, sec(21), 7))),
		),
		together(
			ofPod("a", s.int(sec(30), sec(40), 4)),
			cumulativeOf(ofPod("c", s.int(sec(5), sec(41), 108), s.histogram(sec(5), sec(41), hist([]float64{1, 2}, 11, 20, 30)), s.exponential(sec(5), sec(41), e(1<<41)))),
			cumulativeOf(ofPod("d", s.int(0, sec(41), 8))),
		),
	}
}

// Golden records of version 1 are only read.
const (
	aggregateGolden1 = "testdata/aggregate_v1.txt"
	aggregateGolden  = "testdata/aggregate_v2.txt"
)

// aggregateHistory returns what storage and a shared store hold of aggregateBatches, by name.
func aggregateHistory(t testing.TB, many bool) map[string][]byte {
	t.Helper()
	values := map[string][]byte{}
	now := time.Unix(scriptEpoch-1, 0)
	cfg := aggregateConfig(many, &now)
	st := &rawStore{}
	conv, err := d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: st, Owner: "golden"})
	if err != nil {
		t.Fatal(err)
	}
	files := newMemory()
	durable, _ := openTest(t, cfg, files)
	durable.StopBackground()
	now = time.Unix(scriptEpoch+50, 0)
	for _, md := range aggregateBatches() {
		for _, c := range []*d2c.Converter{conv, durable} {
			if _, err := c.Convert(context.Background(), clonedMetrics(md)); err != nil {
				t.Fatal(err)
			}
		}
	}
	prefix := map[bool]string{true: "many writers, "}[many]
	for id, r := range st.records {
		values[prefix+"shared "+id.String()] = sealShared(r.record, id, goldenTag)
	}
	for key, value := range files.values {
		if strings.HasPrefix(key, "j/") {
			values[prefix+"storage "+key] = bytes.Clone(value)
		}
	}
	return values
}

func aggregateConfig(many bool, now *time.Time) d2c.Config {
	cfg := dropPod(d2c.Config{LateWindow: 5 * time.Minute, Now: func() time.Time { return *now }})
	if many {
		cfg.Writers = d2c.WritersMany
	}
	return cfg
}

// TestAggregateRecordFormat holds records of totals and writers to testdata/aggregate_v2.txt, in both directions.
func TestAggregateRecordFormat(t *testing.T) {
	written := aggregateHistory(t, false)
	maps.Copy(written, aggregateHistory(t, true))
	if *update {
		if _, err := os.Stat(aggregateGolden); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s is there already: another format is another version, with a file of its own", aggregateGolden)
		}
		var b strings.Builder
		for _, name := range slices.Sorted(maps.Keys(written)) {
			fmt.Fprintf(&b, "%s\t%x\n", name, written[name])
		}
		if err := os.WriteFile(aggregateGolden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden := readAggregateGolden(t, aggregateGolden)
	if !slices.Equal(slices.Sorted(maps.Keys(golden)), slices.Sorted(maps.Keys(written))) {
		t.Fatalf("%d records, want %d: %v", len(written), len(golden), slices.Sorted(maps.Keys(written)))
	}
	for name, want := range golden {
		if !bytes.Equal(written[name], want) {
			t.Errorf("%s\n got %x\nwant %x", name, written[name], want)
		}
	}
	for _, many := range []bool{false, true} {
		t.Run(fmt.Sprint("many ", many), func(t *testing.T) { testAggregateGoldenIsRead(t, golden, many) })
		t.Run(fmt.Sprintf("version 1, many %v", many), func(t *testing.T) {
			testAggregateGoldenIsRead(t, readAggregateGolden(t, aggregateGolden1), many)
		})
	}
}

func readAggregateGolden(t testing.TB, file string) map[string][]byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	golden := map[string][]byte{}
	for line := range strings.Lines(string(data)) {
		name, digits, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if golden[name], err = hex.DecodeString(digits); err != nil {
			t.Fatal(err)
		}
	}
	return golden
}

// What is read goes on as what it was made of: all that was counted is a repeat, and what is new is added.
func testAggregateGoldenIsRead(t *testing.T, golden map[string][]byte, many bool) {
	ctx := context.Background()
	now := time.Unix(scriptEpoch-1, 0)
	cfg := aggregateConfig(many, &now)
	prefix := map[bool]string{true: "many writers, "}[many]
	st, files := &rawStore{}, newMemory()
	for name, value := range golden {
		if rest, ok := strings.CutPrefix(name, prefix+"shared "); ok {
			st.put(readID(t, rest), rawRecord{goldenTag, bytes.Clone(value)})
		}
	}
	shared, err := d2c.OpenShared(ctx, cfg, d2c.SharedConfig{Store: st, Owner: "golden"})
	if err != nil {
		t.Fatal(err)
	}
	// The head of storage is as old as the process that wrote it: a journal needs one of its own.
	first, _ := openTest(t, cfg, files)
	closeTest(t, first)
	for name, value := range golden {
		if key, ok := strings.CutPrefix(name, prefix+"storage "); ok {
			files.values[key] = bytes.Clone(value)
		}
	}
	durable, recovery := openTest(t, cfg, files)
	defer closeTest(t, durable)
	if len(recovery.Damaged) > 0 || recovery.Streams != 4 {
		t.Errorf("recovery %+v", recovery)
	}
	now = time.Unix(scriptEpoch+60, 0)
	memory := newConverter(t, cfg)
	batches := aggregateBatches()
	for _, md := range batches {
		convertTotals(t, memory, clonedMetrics(md))
	}
	s := series("s")
	next := together(ofPod("a", s.int(float64(scriptEpoch+40), float64(scriptEpoch+50), 1000)), cumulativeOf(ofPod("c", s.int(float64(scriptEpoch+5), float64(scriptEpoch+51), 208))))
	for i, md := range []pmetric.Metrics{batches[1], next} {
		want := clonedMetrics(md)
		convertTotals(t, memory, want)
		for name, conv := range map[string]*d2c.Converter{"shared": shared, "durable": durable} {
			got := clonedMetrics(md)
			r := convertTotals(t, conv, got)
			if text(got) != text(want) {
				t.Errorf("%s, batch %d:\n got %s\nwant %s\n%s", name, i, text(got), text(want), describeResult(r))
			}
			if i == 0 && r.Count(d2c.Repeat) != 5 {
				t.Errorf("%s: a retry is %s", name, describeResult(r))
			}
		}
	}
	if st.aside > 0 {
		t.Errorf("%d are set aside", st.aside)
	}
	for name, conv := range map[string]*d2c.Converter{"shared": shared, "durable": durable, "memory": memory} {
		if got := conv.Stats(); name != "shared" && (got.Streams != 4 || got.Writers != 9) {
			t.Errorf("%s: %d totals, %d writers", name, got.Streams, got.Writers)
		}
	}
}

func convertTotals(t testing.TB, conv *d2c.Converter, md pmetric.Metrics) d2c.Result {
	t.Helper()
	r, err := conv.Convert(context.Background(), md)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readID(t testing.TB, text string) (id streamid.ID) {
	t.Helper()
	if _, err := fmt.Sscanf(text, "%16x%16x", &id.Hi, &id.Lo); err != nil || id.String() != text {
		t.Fatalf("%s is no ID: %v", text, err)
	}
	return id
}

// FuzzAggregateRecord finds any bytes in the place of the record of a total or a writer, as they are and with a sound checksum. They are
// set aside, or read as what a Converter could have written; a retry elsewhere gives out the same.
func FuzzAggregateRecord(f *testing.F) {
	golden := readAggregateGolden(f, aggregateGolden)
	records := map[bool]map[streamid.ID][]byte{false: {}, true: {}}
	var ids []streamid.ID
	for _, name := range slices.Sorted(maps.Keys(golden)) {
		prefix, text, _ := strings.Cut(name, "shared ")
		if text == "" {
			continue
		}
		id := readID(f, text)
		records[prefix != ""][id] = golden[name]
		if prefix == "" {
			ids = append(ids, id)
		}
	}
	for i, id := range ids {
		for many, of := range records {
			body := of[id][9 : len(of[id])-8]
			f.Add(uint8(i), many, true, body)
			f.Add(uint8(i+1), many, true, body)
			for at := 5; at < len(body); at++ {
				forged := bytes.Clone(body)
				forged[at] ^= 0x81
				f.Add(uint8(i), many, true, forged)
			}
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, many, sound bool, data []byte) {
		if len(data) > 1<<12 {
			return
		}
		now := time.Unix(scriptEpoch-1, 0)
		cfg := aggregateConfig(many, &now)
		id := ids[int(which)%len(ids)]
		if sound {
			data = sealShared(append(append(bytes.Clone(records[many][id][:9]), data...), make([]byte, 8)...), id, goldenTag)
		}
		st := &rawStore{}
		for other, record := range records[many] {
			st.put(other, rawRecord{goldenTag, bytes.Clone(record)})
		}
		st.put(id, rawRecord{goldenTag, bytes.Clone(data)})
		var convs [2]*d2c.Converter
		for i := range convs {
			var err error
			if convs[i], err = d2c.OpenShared(context.Background(), cfg, d2c.SharedConfig{Store: st, Owner: "golden"}); err != nil {
				t.Fatal(err)
			}
		}
		now = time.Unix(scriptEpoch+60, 0)
		s, at := series("s"), float64(scriptEpoch)
		next := together(
			ofPod("a", s.int(at+40, at+50, 1000), s.histogram(at+40, at+50, hist([]float64{1, 2}, 1, 2, 3)), s.exponential(at+40, at+50, expo(3, 0, 1, buckets{2, []uint64{1, 2}}, buckets{}))),
			ofPod("b", s.int(at+40, at+50, 1000), s.double(0, at+50, 0.5), s.updown(at+40, at+50, -3)),
			cumulativeOf(ofPod("c", s.int(at+5, at+51, 208), s.histogram(at+5, at+51, hist([]float64{1, 2}, 11, 20, 31)), s.exponential(at+5, at+51, expo(3, 0, 1, buckets{2, []uint64{1 << 42, 2}}, buckets{})))),
			cumulativeOf(ofPod("d", s.int(0, at+51, 9))),
		)
		first := ""
		for i, conv := range convs {
			md := clonedMetrics(next)
			_, err := conv.Convert(context.Background(), md)
			if errors.Is(err, d2c.ErrVersion) && data[0] > 2 {
				if !bytes.Equal(st.records[id].record, data) || text(md) != text(next) {
					t.Fatal("the record of a newer version has changed, or the batch")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if st.aside > 1 {
				t.Fatalf("%d set aside", st.aside)
			}
			if i == 0 {
				first = text(md)
			} else if again := text(md); again != first {
				t.Fatalf("a retry elsewhere gives\n%s\nwant\n%s", again, first)
			}
		}
		for id, r := range st.records {
			if _, err := convs[0].ReadShared(r.record, r.tag, id); err != nil {
				t.Fatal(err)
			}
		}
	})
}
