// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// FuzzOrder: the same multiset of attributes in any order has the same ID, and it is that of the reference.
func FuzzOrder(f *testing.F) {
	f.Add([]byte(nil), uint64(0))
	f.Add([]byte("\x00\x80\xff\x40\xc0\x20\xe0\x60\xa0"), uint64(1))
	f.Add([]byte(strings.Repeat("\xff", 300)), uint64(2))
	f.Fuzz(func(t *testing.T, shape []byte, order uint64) {
		id := randomIdentity(newSteered(shape))
		want := check(t, id)
		if got := check(t, id.shuffled(rand.New(rand.NewPCG(order, 0)))); got != want {
			t.Fatalf("got %v, want %v for %s", got, want, id.canonical())
		}
	})
}

// FuzzChange: any single change gives another ID.
func FuzzChange(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("\x00\x80\xff\x40\xc0\x20\xe0\x60\xa0"))
	f.Add([]byte(strings.Repeat("\xc0", 300)))
	f.Fuzz(func(t *testing.T, shape []byte) {
		checkChanges(t, randomIdentity(newSteered(shape)))
	})
}

// FuzzStrings: names, keys and values that the fuzzer writes itself.
func FuzzStrings(f *testing.F) {
	f.Add("", "", "", "", "", "", uint64(0))
	f.Add("scope", "1.2.3", "http.server.duration", "ms", "http.route", "/cart", uint64(1))
	f.Add("größe", "\x00", strings.Repeat("x", 241), "{request}", "\xff\xfe", strings.Repeat("y", 1025), ^uint64(0))
	f.Fuzz(func(t *testing.T, name, version, metricName, unit, key, text string, seed uint64) {
		check(t, identity{
			Seed:       seed,
			Resource:   []attribute{attr(key, blob(text))},
			Scope:      scope{Name: name, Version: version, Attributes: []attribute{attr(text, str(key))}},
			Metric:     metric{Name: metricName, Unit: unit, Type: "sum", Temporality: "delta"},
			Attributes: []attribute{attr(key, str(text)), attr(text, array(str(key), blob(name)))},
		})
	})
}

// FuzzWire: whatever the decoder lets through gets an ID, and the same one after another round trip.
func FuzzWire(f *testing.F) {
	for _, g := range goldenIdentities()[:8] {
		f.Add(appendAttributes(nil, g.Attributes))
	}
	f.Add([]byte("\x0a\x04\x12\x02\x2a\x00"))         // a slice without elements, no key
	f.Add([]byte("\x0a\x04\x12\x02\x32\x00"))         // a map without entries, no key
	f.Add([]byte("\x0a\x06\x12\x04\x08\x01\x08\x00")) // a string field of the wrong wire type
	f.Add([]byte("\x0a\x04\x12\x02\x40\x05"))         // a string index, which metrics do not have
	f.Fuzz(func(t *testing.T, attributes []byte) {
		unmarshaler := new(pmetric.ProtoUnmarshaler)
		md, err := unmarshaler.UnmarshalMetrics(appendField(nil, 1, appendField(nil, 1, attributes)))
		if err != nil || md.ResourceMetrics().Len() == 0 {
			return
		}
		of := func(md pmetric.Metrics) streamid.ID {
			return streamid.Of(md.ResourceMetrics().At(0).Resource(), pcommon.NewInstrumentationScope(), pmetric.NewMetric(), pcommon.NewMap())
		}
		want := of(md)
		wire, err := new(pmetric.ProtoMarshaler).MarshalMetrics(md)
		if err != nil {
			t.Fatal(err)
		}
		again, err := unmarshaler.UnmarshalMetrics(wire)
		if err != nil {
			t.Fatal(err)
		}
		if got := of(again); got != want {
			t.Fatalf("after a round trip %v, before %v", got, want)
		}
	})
}

// FuzzParse: a text is an ID exactly if it is what String returns, up to the case of letters.
func FuzzParse(f *testing.F) {
	f.Add("")
	f.Add("0123456789abcdef0123456789abcdef")
	f.Add("0123456789ABCDEF0123456789ABCDEF")
	f.Add("0123456789abcdef0123456789abcdeg")
	f.Add("0123456789abcdef0123456789abcde")
	f.Add("0x23456789abcdef0123456789abcdef")
	f.Fuzz(func(t *testing.T, s string) {
		wellFormed := len(s) == 32 && strings.Trim(s, "0123456789abcdefABCDEF") == ""
		id, err := streamid.Parse(s)
		if (err == nil) != wellFormed {
			t.Fatalf("Parse(%q): %v, %v", s, id, err)
		}
		if err != nil {
			if id != (streamid.ID{}) {
				t.Fatalf("Parse(%q): an error and the id %v", s, id)
			}
			return
		}
		if got := id.String(); got != strings.ToLower(s) {
			t.Fatalf("Parse(%q).String(): %s", s, got)
		}
	})
}
