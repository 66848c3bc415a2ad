// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package otelcol

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/deltaring/deltaring/d2c"
)

// TestOneNode runs one-node.yaml in front of an OTLP backend that is unavailable at first.
func TestOneNode(t *testing.T) {
	t.Parallel()
	backend := &otlpBackend{unavailable: 1}
	server := httptest.NewServer(backend)
	t.Cleanup(server.Close)
	coll := startCollector(t, "one-node.yaml", []string{"OTLP_BACKEND=" + server.URL})
	book, line := newLedger(), newTimeline()
	p := newProducer(coll.client(t), book, 11, nil, nil)

	// What the backend must get for one of the streams: the sum of all deltas so far, in order, and once: what a retry brings again it has.
	series := p.key("shop_orders_total", "http_route", routes[0])
	var want []string
	expect := func() {
		start, latest := line.at(0).UnixNano(), book.last(series)
		want = append(want, fmt.Sprintf("cumulative %v since %d at ms %d", latest.value, start, latest.ms))
	}
	for i := range intervals {
		sums := p.sums(line.at(i), line.at(i+1))
		if err := p.send(sums, firstOr(d2c.AddedAligned, i), sums.end); err != nil {
			t.Fatal(err)
		}
		expect()
		if i%4 == 2 {
			if err := p.send(sums, d2c.Repeat, time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := poll(func() error { return coll.compareTelemetry(book) }); err != nil {
		t.Error(err)
	}
	if got := backend.received(); !slices.Equal(got, want) {
		t.Errorf("the backend got\n%q, want\n%q", got, want)
	}
}

// otlpBackend accepts metrics over OTLP/HTTP and keeps what it got of the stream shop.orders of the first route.
type otlpBackend struct {
	mu          sync.Mutex
	unavailable int // requests still to be turned away
	points      []string
}

func (b *otlpBackend) received() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.points)
}

func (b *otlpBackend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.unavailable > 0 {
		b.unavailable--
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	request, err := readExport(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for _, rm := range request.Metrics().ResourceMetrics().All() { // of several batches
		for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
			if m.Name() != "shop.orders" {
				continue
			}
			temporality := "delta"
			if m.Sum().AggregationTemporality() == pmetric.AggregationTemporalityCumulative {
				temporality = "cumulative"
			}
			pt := m.Sum().DataPoints().At(0)
			b.points = append(b.points, fmt.Sprintf("%s %v since %d at ms %d",
				temporality, pt.IntValue(), pt.StartTimestamp(), pt.Timestamp().AsTime().UnixMilli()))
		}
	}
	body, _ := pmetricotlp.NewExportResponse().MarshalProto() // of an empty message; cannot fail
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(body)
}

func readExport(r *http.Request) (pmetricotlp.ExportRequest, error) {
	request := pmetricotlp.NewExportRequest()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return request, err
	}
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzip, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return request, err
		}
		if body, err = io.ReadAll(unzip); err != nil {
			return request, err
		}
	}
	return request, request.UnmarshalProto(body)
}
