// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package alike

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/zeebo/xxh3"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// Labels says what the backend makes labels of, besides the attributes of points. Its text is the word that a configuration file
// uses.
type Labels uint8

const (
	// None asks for nothing.
	None Labels = iota
	// Service is the service's namespace, name and instance, as job and instance.
	Service
	// Resource is all of a resource, and the scope.
	Resource
)

var labelNames = []string{"none", "service", "resource"}

// Known reports whether l is one of these.
func (l Labels) Known() bool { return int(l) < len(labelNames) }

// String returns the word a configuration file uses.
func (l Labels) String() string {
	if l.Known() {
		return labelNames[l]
	}
	return fmt.Sprintf("labels(%d)", uint8(l))
}

// MarshalText implements encoding.TextMarshaler.
func (l Labels) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; an unknown word is an error that lists the known ones.
func (l *Labels) UnmarshalText(text []byte) error {
	i := slices.Index(labelNames, string(text))
	if i < 0 {
		return fmt.Errorf("unknown %q, want one of %q", text, labelNames)
	}
	*l = Labels(i)
	return nil
}

// Detector remembers the series of the streams that were opened. It is safe for concurrent use.
type Detector struct {
	labels Labels
	seed   uint64 // random: who chooses attributes must not choose what is taken for one series

	mu   sync.Mutex
	seen set
}

// NewDetector returns a detector for a backend.
func NewDetector(labels Labels) *Detector { return &Detector{labels: labels, seed: rand.Uint64()} }

// Memory returns the bytes that it has allocated.
func (d *Detector) Memory() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen.memory()
}

// Opened notes that a stream was opened, and reports whether another stream of its series was before.
func (d *Detector) Opened(series uint64, id streamid.ID) (duplicate bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen.add(series, uint32(id.Hi^id.Lo>>32))
}

// Hasher finds the series of points, one by one. Its buffer is scratch space.
type Hasher struct {
	buf []byte
}

// Resource hashes what the points of a resource share. tenant is anything that tells tenants apart: they have backends, or labels,
// of their own.
func (d *Detector) Resource(h *Hasher, tenant streamid.ID, r pcommon.Resource) uint64 {
	sum := tenant.Hi ^ tenant.Lo
	if d.labels == Resource {
		return d.mix(sum, d.attributes(h, r.Attributes()))
	}
	for i, key := range [...]string{"service.namespace", "service.name", "service.instance.id"} {
		if v, found := r.Attributes().Get(key); found {
			if h.buf = appendText(append(h.buf[:0], byte(i)), v); len(h.buf) > 1 {
				sum = d.mix(sum, xxh3.HashSeed(h.buf, d.seed))
			}
		}
	}
	return sum
}

// Metric goes on for a metric. Units that say nothing in a name, like 1 and {request}, are none.
func (d *Detector) Metric(h *Hasher, resource uint64, scope pcommon.InstrumentationScope, m pmetric.Metric) uint64 {
	kind := byte(m.Type())
	if d.labels == Resource {
		h.buf = append(append(append(h.buf[:0], scope.Name()...), 0), scope.Version()...)
		resource = d.mix(d.mix(resource, xxh3.HashSeed(h.buf, d.seed)), d.attributes(h, scope.Attributes()))
	}
	name, unit := m.Name(), m.Unit()
	if m.Type() == pmetric.MetricTypeSum && m.Sum().IsMonotonic() {
		kind |= 1 << 7
		name = strings.TrimSuffix(name, "_total") // the backend appends it where it is not there
	}
	if unit == "1" || strings.HasPrefix(unit, "{") {
		unit = ""
	}
	h.buf = appendName(append(h.buf[:0], kind), name)
	h.buf = append(append(h.buf, 0), unit...)
	return d.mix(resource, xxh3.HashSeed(h.buf, d.seed))
}

// Point goes on for a point, and returns its series.
func (d *Detector) Point(h *Hasher, metric uint64, attrs pcommon.Map) uint64 {
	return d.mix(metric, d.attributes(h, attrs))
}

// attributes hashes labels, in whatever order.
func (d *Detector) attributes(h *Hasher, attrs pcommon.Map) (sum uint64) {
	for key, v := range attrs.All() {
		h.buf = append(appendName(h.buf[:0], key), '=')
		name := len(h.buf)
		if h.buf = appendText(h.buf, v); len(h.buf) > name {
			sum += xxh3.HashSeed(h.buf, d.seed)
		}
	}
	const maxBuffer = 1 << 12
	if cap(h.buf) > maxBuffer {
		h.buf = nil
	}
	return sum
}

func (d *Detector) mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^d.seed, b^0x9e3779b97f4a7c15)
	return hi ^ lo ^ b
}

// appendName appends a name as labels have it: what is no letter or digit is an underscore, several of these are one.
func appendName(dst []byte, name string) []byte {
	from := len(dst)
	for i := range len(name) {
		c := name[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9') {
			if c = '_'; len(dst) > from && dst[len(dst)-1] == '_' {
				continue
			}
		}
		dst = append(dst, c)
	}
	return dst
}

// appendText appends a value as labels have it.
func appendText(dst []byte, v pcommon.Value) []byte {
	switch v.Type() {
	case pcommon.ValueTypeStr:
		return append(dst, v.Str()...)
	case pcommon.ValueTypeInt:
		return strconv.AppendInt(dst, v.Int(), 10)
	case pcommon.ValueTypeBool:
		return strconv.AppendBool(dst, v.Bool())
	}
	return append(dst, v.AsString()...)
}
