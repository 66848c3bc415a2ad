// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid_test

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/deltaring/deltaring/streamid"
)

// hashes are the results of the four steps.
type hashes struct {
	Resource streamid.ID `json:"resource"`
	Scope    streamid.ID `json:"scope"`
	Metric   streamid.ID `json:"metric"`
	ID       streamid.ID `json:"id"`
}

// reference computes encoding v1 as the package comment has it: slowly, on plain data, with its own XXH3.
func (id identity) reference() hashes {
	s := id.Seed
	var h hashes
	h.Resource = h128(refSum(id.Resource, s), s+9*refG())
	if tenant := id.tenant(); len(tenant) > 0 {
		h.Resource = h128(concat(refSum(id.Resource, s), refSum(tenant, s)), s+16*refG())
	}
	h.Scope = h128(concat(refID(h.Resource), refID(h128([]byte(id.Scope.Name), s)), refID(h128([]byte(id.Scope.Version), s)),
		refSum(id.Scope.Attributes, s)), s+10*refG())
	h.Metric = h128(concat(refID(h.Scope), refID(h128([]byte(id.Metric.Name), s)), refID(h128([]byte(id.Metric.Unit), s)),
		refKind(id.Metric)), s+11*refG())
	h.ID = h128(concat(refID(h.Metric), refSum(id.Attributes, s)), s+12*refG())
	return h
}

// refG is a function because the products are to wrap, which those of constants do not.
func refG() uint64 { return 0x9E3779B97F4A7C15 }

func refKind(m metric) []byte {
	kind := map[string]byte{"none": 0, "gauge": 1, "sum": 2, "histogram": 3, "exponential_histogram": 4, "summary": 5}[m.Type]
	var monotonic, temporality byte
	if m.Type == "sum" && m.Monotonic {
		monotonic = 1
	}
	if m.Type == "sum" || m.Type == "histogram" || m.Type == "exponential_histogram" {
		temporality = map[string]byte{"unspecified": 0, "delta": 1, "cumulative": 2, "unknown": 255}[m.Temporality]
	}
	return []byte{kind, monotonic, temporality}
}

func refSum(as []attribute, seed uint64) []byte {
	total := new(big.Int)
	for _, a := range as {
		total.Add(total, refInt(refPair(a, seed)))
	}
	total.Mod(total, new(big.Int).Lsh(big.NewInt(1), 128))
	var bigEndian [16]byte
	total.FillBytes(bigEndian[:])
	sum := streamid.ID{Hi: binary.BigEndian.Uint64(bigEndian[:8]), Lo: binary.BigEndian.Uint64(bigEndian[8:])}
	return concat(refID(sum), refWord(uint64(len(as))))
}

func refPair(a attribute, seed uint64) streamid.ID {
	k := h128([]byte(a.Key), seed)
	w := refValue(a.Value, k.Lo)
	return streamid.ID{Hi: w.Hi ^ k.Hi, Lo: w.Lo}
}

func refValue(v value, s uint64) streamid.ID {
	var t uint64
	var h streamid.ID
	switch v.Type {
	case "str":
		t = s + 1*refG()
		h = h128(v.bytes(), t)
	case "bool":
		t = s + 2*refG()
		h = h128([]byte{map[bool]byte{false: 0, true: 1}[v.bool()]}, t)
	case "int":
		t = s + 3*refG()
		h = h128(refWord(uint64(v.int())), t)
	case "double":
		t = s + 4*refG()
		bits := v.bits()
		if math.IsNaN(math.Float64frombits(bits)) {
			bits = 0x7FF8000000000001
		}
		h = h128(refWord(bits), t)
	case "map":
		t = s + 5*refG()
		h = h128(refSum(v.Map, t), t)
	case "slice":
		t = s + 6*refG()
		c := streamid.ID{Hi: 0, Lo: uint64(len(v.Slice))}
		for _, e := range v.Slice {
			c = h128(concat(refID(c), refID(refValue(e, t))), t)
		}
		h = h128(refID(c), t)
	case "bytes":
		t = s + 7*refG()
		h = h128(v.bytes(), t)
	case "empty":
		t = s + 8*refG()
		h = h128(nil, t)
	}
	return streamid.ID{Hi: h.Hi ^ t, Lo: h.Lo}
}

func refID(id streamid.ID) []byte { return concat(refWord(id.Hi), refWord(id.Lo)) }

func refWord(w uint64) []byte { return binary.LittleEndian.AppendUint64(nil, w) }

func refInt(id streamid.ID) *big.Int {
	hi := new(big.Int).SetUint64(id.Hi)
	return hi.Lsh(hi, 64).Add(hi, new(big.Int).SetUint64(id.Lo))
}

func concat(parts ...[]byte) []byte {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// check demands that every way to build and to hash id agrees with the reference, and returns its ID.
func check(t testing.TB, id identity) streamid.ID {
	t.Helper()
	want := id.reference().ID
	paths := map[string]stream{"decoded": id.pdata(t)}
	if s, ok := id.pdataByAPI(); ok {
		paths["set"] = s
	}
	for built, s := range paths {
		if got := s.batch(id.Seed); got != want {
			t.Fatalf("%s, batch form: got %v, reference %v, for %s", built, got, want, id.canonical())
		}
		if len(id.tenant()) > 0 {
			continue
		}
		if got := streamid.Seed(id.Seed).Resource(s.resource).Scope(s.scope).Metric(s.metric).Point(s.attributes); got != want {
			t.Fatalf("%s, without a tenant: got %v, reference %v, for %s", built, got, want, id.canonical())
		}
		if id.Seed != 0 {
			continue
		}
		if got := streamid.Of(s.resource, s.scope, s.metric, s.attributes); got != want {
			t.Fatalf("%s, Of: got %v, reference %v, for %s", built, got, want, id.canonical())
		}
	}
	return want
}

func TestRandomIdentitiesAgreeWithTheReference(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 3000 {
		check(t, randomIdentity(r))
	}
}

// TestValuesOfEveryLength goes over the lengths at which XXH3, or the copying of byte slices, changes its ways.
func TestValuesOfEveryLength(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	content := make([]byte, 5000)
	for i := range content {
		content[i] = byte(r.Uint32())
	}
	for n := range len(content) {
		if n > 1100 && n%97 != 0 && (n+1)%1024 > 2 {
			continue
		}
		s := string(content[:n])
		check(t, identity{Seed: uint64(n % 3), Attributes: []attribute{attr(s, str(s)), attr("bytes", blob(s))}})
	}
}
