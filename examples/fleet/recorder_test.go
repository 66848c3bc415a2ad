// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/golang/snappy"
	"google.golang.org/protobuf/encoding/protowire"
)

// writeRequest is a prometheus.WriteRequest with a label for each series, which has samples at these times.
func writeRequest(series map[string][]int64, order ...string) []byte {
	field := func(b []byte, number protowire.Number, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), value)
	}
	var request []byte
	for _, name := range order {
		ts := field(nil, 1, field(field(nil, 1, []byte("__name__")), 2, []byte(name)))
		for _, ms := range series[name] {
			s := protowire.AppendFixed64(protowire.AppendTag(nil, 1, protowire.Fixed64Type), 0)
			s = protowire.AppendVarint(protowire.AppendTag(s, 2, protowire.VarintType), uint64(ms))
			ts = field(ts, 2, s)
		}
		request = field(request, 1, ts)
	}
	return snappy.Encode(nil, request)
}

func TestReadWrite(t *testing.T) {
	samples, err := readWrite(writeRequest(map[string][]int64{"a": {1000, 2000}, "b": {3000}}, "a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	var times []int64
	for _, s := range samples {
		times = append(times, s.ms)
	}
	if !slices.Equal(times, []int64{1000, 2000, 3000}) || samples[0].series != samples[1].series || samples[1].series == samples[2].series {
		t.Errorf("read %v", samples)
	}
	for _, bad := range [][]byte{nil, []byte("not snappy"), snappy.Encode(nil, []byte{0x0a, 0x7f})} {
		if _, err := readWrite(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestRecorderHandsOnAndCountsWhatIsRejected(t *testing.T) {
	status, got := http.StatusNoContent, []byte(nil)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		_, _ = body.ReadFrom(r.Body)
		got = body.Bytes()
		if r.Header.Get("Content-Encoding") != "snappy" {
			t.Error("headers are lost")
		}
		w.WriteHeader(status)
	}))
	defer backend.Close()
	r, err := newRecorder(backend.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer r.stop()
	write := func(want int) {
		t.Helper()
		body := writeRequest(map[string][]int64{"a": {1000, 2000}, "b": {3000}}, "a", "b")
		request, err := http.NewRequest(http.MethodPost, r.url, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Encoding", "snappy")
		resp, err := httpClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want || !bytes.Equal(got, body) {
			t.Errorf("answer %d, want %d; handed on unchanged: %v", resp.StatusCode, want, bytes.Equal(got, body))
		}
	}
	write(http.StatusNoContent)
	if n, excuse := r.refused(); n != 0 || excuse != "" {
		t.Errorf("%d samples rejected: %s", n, excuse)
	}
	status = http.StatusBadRequest
	write(http.StatusBadRequest)
	if n, excuse := r.refused(); n != 3 || excuse == "" {
		t.Errorf("%d samples rejected: %q, want all 3 of the request", n, excuse)
	}
}

func TestFreshness(t *testing.T) {
	begin := time.Now().Add(-time.Hour)
	r := &recorder{latest: map[string]arrival{}}
	arrive := func(seconds int, series string, ms int64, status int) {
		r.record([]written{{series, ms}}, status, "", begin.Add(time.Duration(seconds)*time.Second))
	}
	arrive(0, "a", 1000, 204)
	arrive(100, "a", 2000, 204) // before anybody watches
	r.watch()
	arrive(110, "a", 2000, 204) // not fresh
	arrive(115, "a", 3000, 400) // not taken
	arrive(120, "b", 1000, 204) // the first of its series
	arrive(130, "a", 3000, 204)
	if r.stalest != 30*time.Second {
		t.Errorf("stalest is %v, want 30s", r.stalest)
	}
	if got := r.unwatch(); got < 3400*time.Second {
		t.Errorf("stalest is %v, though nothing came for most of an hour", got)
	}
}
