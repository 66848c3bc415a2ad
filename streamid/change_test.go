// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"encoding/binary"
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/deltaring/deltaring/streamid"
)

// bijection demands that equal streams have equal IDs and different streams different ones.
type bijection struct {
	t  testing.TB
	id map[string]streamid.ID
	of map[streamid.ID]string
}

func newBijection(t testing.TB) bijection {
	return bijection{t, map[string]streamid.ID{}, map[streamid.ID]string{}}
}

func (b bijection) add(id identity, got streamid.ID) {
	b.t.Helper()
	b.addText(id.canonical(), got)
}

// addText is add of a stream by a text that no other stream has.
func (b bijection) addText(canonical string, got streamid.ID) {
	b.t.Helper()
	if before, ok := b.id[canonical]; ok && before != got {
		b.t.Fatalf("two IDs, %v and %v, for %.500s", before, got, canonical)
	}
	if before, ok := b.of[got]; ok && before != canonical {
		b.t.Fatalf("one ID, %v, for two streams:\n%.500s\n%.500s", got, before, canonical)
	}
	b.id[canonical], b.of[got] = got, canonical
}

// changes returns all that differ from id in one place. Some may be the same stream, for instance by two equal names
// swapped; bijection can tell.
func (id identity) changes() []identity {
	var all []identity
	change := func(edit func(*identity)) {
		changed := id
		edit(&changed)
		all = append(all, changed)
	}
	change(func(c *identity) { c.Seed++ })

	// Every string, by itself and against its neighbours.
	fields := []func(*identity) *string{
		func(c *identity) *string { return &c.Scope.Name },
		func(c *identity) *string { return &c.Scope.Version },
		func(c *identity) *string { return &c.Metric.Name },
		func(c *identity) *string { return &c.Metric.Unit },
	}
	for i, field := range fields {
		for _, s := range stringChanges(*field(&id)) {
			change(func(c *identity) { *field(c) = s })
		}
		for _, other := range fields[i+1:] {
			change(func(c *identity) { *field(c), *other(c) = *other(c), *field(c) })
			change(func(c *identity) { *field(c), *other(c) = *field(c)+*other(c), "" })
			change(func(c *identity) { *field(c), *other(c) = "", *field(c)+*other(c) })
		}
	}

	for _, kind := range metricTypes {
		change(func(c *identity) { c.Metric.Type = kind })
	}
	for _, temporality := range temporalities {
		change(func(c *identity) { c.Metric.Temporality = temporality })
	}
	change(func(c *identity) { c.Metric.Monotonic = !c.Metric.Monotonic })

	// Every attribute, where it is and moved elsewhere.
	places := []func(*identity) *[]attribute{
		func(c *identity) *[]attribute { return &c.Resource },
		func(c *identity) *[]attribute { return &c.Scope.Attributes },
		func(c *identity) *[]attribute { return &c.Attributes },
	}
	for i, place := range places {
		for _, as := range attributesChanges(*place(&id)) {
			change(func(c *identity) { *place(c) = as })
		}
		for j, other := range places {
			if i == j {
				continue
			}
			for k, a := range *place(&id) {
				change(func(c *identity) { *place(c), *other(c) = without(*place(c), k), with(*other(c), a) })
			}
			change(func(c *identity) { *place(c), *other(c) = *other(c), *place(c) })
		}
	}

	// What tells the tenant, where it is and as attributes of the resource.
	for _, as := range tenantChanges(id.Tenant) {
		change(func(c *identity) { c.Tenant = as })
	}
	for i, a := range id.Tenant {
		change(func(c *identity) { c.Tenant, c.Resource = without(c.Tenant, i), with(c.Resource, a) })
	}
	change(func(c *identity) { c.Tenant, c.Resource = nil, with(c.Resource, c.Tenant...) })
	return all
}

func tenantChanges(as []attribute) [][]attribute {
	all := [][]attribute{with(as, attr("", array(str("")))), with(as, attr("new", array(str("a")))), with(as, attr("new", array()))}
	for i, a := range as {
		rest, values := without(as, i), a.Value.Slice
		replaced := func(key string, values ...value) { all = append(all, with(rest, attr(key, array(values...)))) }
		all = append(all, rest, with(as, a))
		for _, key := range stringChanges(a.Key) {
			replaced(key, values...)
		}
		replaced(a.Key, with(values, str(""))...)
		for j, v := range values {
			others := without(values, j)
			replaced(a.Key, others...)
			replaced(a.Key, with(others, v)...) // in another order
			replaced(a.Key, with(values, v)...)
			all = append(all, with(with(rest, attr(a.Key, array(others...))), attr(a.Key, array(v)))) // the key twice
			for _, s := range stringChanges(string(v.bytes())) {
				replaced(a.Key, with(others, str(s))...)
			}
			if j > 0 {
				before := string(values[j-1].bytes())
				replaced(a.Key, with(without(others, j-1), str(before+string(v.bytes())))...)
				replaced(a.Key, with(without(others, j-1), str(before+","+string(v.bytes())))...)
			}
		}
	}
	return all
}

func attributesChanges(as []attribute) [][]attribute {
	all := [][]attribute{
		with(as, attr("", empty())),
		with(as, attr("new", str(""))),
		{attr("", kvlist(as...))}, // one level down
	}
	for i, a := range as {
		rest := without(as, i)
		all = append(all, rest, with(as, a), with(with(as, a), a))
		for _, key := range stringChanges(a.Key) {
			all = append(all, with(rest, attr(key, a.Value)))
		}
		for _, v := range valueChanges(a.Value) {
			all = append(all, with(rest, attr(a.Key, v)))
		}
		if a.Value.Type == "str" {
			s := string(a.Value.bytes())
			all = append(all, with(rest, attr(s, str(a.Key))), with(rest, attr(a.Key+s, str(""))), with(rest, attr("", str(a.Key+s))))
		}
		for j := range i {
			swapped := with(without(rest, j), attr(as[j].Key, a.Value))
			all = append(all, with(swapped, attr(a.Key, as[j].Value)))
		}
	}
	return all
}

func valueChanges(v value) []value {
	// Other types, with the same content where there is such a thing.
	all := []value{
		empty(), str(""), blob(""), kvlist(), array(), integer(0), double(0), boolean(false),
		array(v), array(v, v), kvlist(attr("", v)), str(v.Text), blob(v.Text),
	}
	switch v.Type {
	case "str", "bytes":
		content := string(v.bytes())
		for _, s := range append(stringChanges(content), content) {
			all = append(all, str(s), blob(s))
		}
		if len(content) == 8 {
			word := binary.LittleEndian.Uint64([]byte(content))
			all = append(all, integer(int64(word)), doubleBits(word))
		}
	case "bool":
		all = append(all, boolean(!v.bool()), integer(int64(len(v.Text))), str("\x00"), str("\x01"))
	case "int":
		i := v.int()
		all = append(all, integer(i+1), integer(i-1), integer(-i), integer(i^math.MinInt64), integer(int64(bits.ReverseBytes64(uint64(i)))),
			double(float64(i)), doubleBits(uint64(i)), blob(string(refWord(uint64(i)))), str(string(refWord(uint64(i)))))
	case "double":
		b := v.bits()
		all = append(all, doubleBits(b+1), doubleBits(b^1<<63), doubleBits(b^1<<51), integer(int64(b)),
			blob(string(refWord(b))), str(string(refWord(b))))
	case "map":
		for _, as := range attributesChanges(v.Map) {
			all = append(all, kvlist(as...))
		}
		for _, a := range v.Map {
			all = append(all, a.Value)
		}
	case "slice":
		all = append(all, array(with(v.Slice, empty())...))
		for i, e := range v.Slice {
			rest := without(v.Slice, i)
			all = append(all, e, array(rest...), array(with(v.Slice, e)...), array(with(rest, e)...))
			for _, c := range valueChanges(e) {
				elements := with(v.Slice)
				elements[i] = c
				all = append(all, array(elements...))
			}
		}
	}
	return all
}

func stringChanges(s string) []string {
	all := []string{s + "\x00", s + "x", "x" + s, s + s}
	for _, i := range []int{0, len(s) / 2, len(s) - 1} {
		if i >= 0 && i < len(s) {
			all = append(all, s[:i]+s[i+1:], s[:i]+string([]byte{s[i] ^ 1})+s[i+1:], s[:i]+string([]byte{s[i] ^ 0x80})+s[i+1:])
		}
	}
	return all
}

func with[T any](list []T, more ...T) []T { return append(append([]T(nil), list...), more...) }

func without[T any](list []T, i int) []T { return append(append([]T(nil), list[:i]...), list[i+1:]...) }

// checkChanges hashes id and everything one change away.
func checkChanges(t testing.TB, id identity) {
	t.Helper()
	seen := newBijection(t)
	seen.add(id, id.pdata(t).batch(id.Seed))
	for _, c := range id.changes() {
		seen.add(c, c.pdata(t).batch(c.Seed))
	}
}

func TestAnySingleChangeGivesAnotherID(t *testing.T) {
	for _, g := range goldenIdentities() {
		if large := g.canonical(); len(large) < 10_000 {
			checkChanges(t, g.identity)
		}
	}
	r := rand.New(rand.NewPCG(11, 12))
	for range 50 {
		checkChanges(t, randomIdentity(r))
	}
}

func TestOrderDoesNotMatter(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	for range 2000 {
		id := randomIdentity(r)
		want := id.pdata(t).batch(id.Seed)
		if got := id.shuffled(r).pdata(t).batch(id.Seed); got != want {
			t.Fatalf("got %v, want %v for %s", got, want, id.canonical())
		}
	}
}

// TestFieldsOutsideTheIdentityDoNotMatter sets everything that a point's owners have beside their identity.
func TestFieldsOutsideTheIdentityDoNotMatter(t *testing.T) {
	for _, kind := range metricTypes {
		id := goldenIdentities()[1].identity
		id.Metric.Type = kind
		want := check(t, id)
		s := id.pdata(t)
		s.resource.SetDroppedAttributesCount(7)
		s.scope.SetDroppedAttributesCount(7)
		s.metric.SetDescription("description")
		s.metric.Metadata().PutStr("prometheus.type", "unknown")
		switch kind {
		case "gauge":
			s.metric.Gauge().DataPoints().AppendEmpty().SetIntValue(1)
		case "sum":
			p := s.metric.Sum().DataPoints().AppendEmpty()
			p.SetStartTimestamp(1)
			p.SetTimestamp(2)
			p.SetDoubleValue(3)
			p.Attributes().PutStr("another", "point")
		case "histogram":
			p := s.metric.Histogram().DataPoints().AppendEmpty()
			p.ExplicitBounds().Append(1, 2, 3)
			p.BucketCounts().Append(1, 2, 3, 4)
		case "exponential_histogram":
			s.metric.ExponentialHistogram().DataPoints().AppendEmpty().SetScale(3)
		case "summary":
			s.metric.Summary().DataPoints().AppendEmpty().SetCount(1)
		}
		if got := s.batch(id.Seed); got != want {
			t.Errorf("%s: got %v, want %v", kind, got, want)
		}
	}
}

// TestTypesDoNotShareAState is about values of 8 bytes: to each there is one of another type that brings XXH3 into the same
// state of 64 bits, so that H gives the same 128 bits for both. Their IDs must differ all the same.
func TestTypesDoNotShareAState(t *testing.T) {
	// The words of the default secret that XXH3 mixes into inputs of 4 to 8 bytes.
	const flip = 0xDB979083E96DD4DE ^ 0x1F67B3B7A4A44072
	state := func(word, seed uint64) uint64 {
		return word ^ (flip + (seed ^ uint64(bits.ReverseBytes32(uint32(seed)))<<32))
	}
	r := rand.New(rand.NewPCG(15, 16))
	for range 100 {
		key := randomString(r)
		s := h128([]byte(key), 0).Lo
		text, number := s+1*refG(), s+3*refG()
		word := r.Uint64()
		other := state(0, number) ^ state(word, text)
		if h128(refWord(word), text) != h128(refWord(other), number) {
			t.Fatalf("the premise is wrong: %x as a string and %x as an integer have different hashes", word, other)
		}
		a := check(t, identity{Attributes: []attribute{attr(key, str(string(refWord(word))))}})
		b := check(t, identity{Attributes: []attribute{attr(key, integer(int64(other)))}})
		if a == b {
			t.Fatalf("key %q: string %x and integer %x have one ID, %v", key, word, other, a)
		}
	}
}

// TestEitherHalfIsUniform hashes streams that differ in a counter only, as those of a fleet do. Each bit of an ID must be
// set in half of them; six standard deviations leave one false alarm in a million runs, were the streams not fixed.
func TestEitherHalfIsUniform(t *testing.T) {
	const n = 1 << 17
	metric := goldenIdentities()[1].pdata(t)
	m := streamid.Seed(0).Resource(metric.resource).Scope(metric.scope).Metric(metric.metric)
	attrs := pcommon.NewMap()
	var set [128]int
	hi, lo := make(map[uint64]bool, n), make(map[uint64]bool, n)
	for i := range n {
		attrs.PutInt("worker", int64(i))
		id := m.Point(attrs)
		for b := range 64 {
			set[b] += int(id.Lo >> b & 1)
			set[64+b] += int(id.Hi >> b & 1)
		}
		hi[id.Hi], lo[id.Lo] = true, true
	}
	for b, got := range set {
		if off := math.Abs(float64(got) - n/2); off > 6*math.Sqrt(n)/2 {
			t.Errorf("bit %d is set in %d of %d IDs", b, got, n)
		}
	}
	if len(hi) != n || len(lo) != n {
		t.Errorf("%d different high halves and %d different low halves of %d IDs", len(hi), len(lo), n)
	}
}
