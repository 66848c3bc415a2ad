// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !purego

package streamid

import "unsafe"

// transplant builds the parts of a batch by the layout of pdata. It walks over the batch and its plan twice: to count what
// each part needs, and to build. Where an element is split, the first part to have something of it gets the element
// itself, with what remains in it, and the others get copies.
type transplant struct {
	types    pdataTypes
	parts    []partBuilder
	counting bool
}

// partBuilder builds one part. It allocates once per type. Parts share no memory: one that is kept for long does not keep
// the others.
type partBuilder struct {
	root  *list // the part's resources
	state unsafe.Pointer

	// at tells for each level which element of the walk is open: the one whose part of the next level is being built.
	at [levels - 1]int

	lists     [levels]listBuilder
	resources arena[resourceLayout]
	scopes    arena[scopeLayout]
	metrics   arena[metricCopy]
	pairs     arena[pairLayout]
	texts     arena[stringLayout]
}

// The levels of a batch. Items are metrics, spans or log records.
const (
	resourceLevel = iota
	scopeLevel
	itemLevel
	pointLevel
	levels
)

// metricCopy is a metric together with what its data points to.
type metricCopy struct {
	metric metricLayout
	data   dataLayout
	points sumLayout
}

// begin is false if pdata is not laid out as layout.go has it.
func (t *transplant) begin() bool {
	types, err := layout()
	t.types, t.parts = types, t.parts[:0]
	return err == nil
}

// addPart adds a part, which is empty as yet.
func addPart[S resourceSlice](t *transplant, part S) {
	s := (*sliceLayout)(unsafe.Pointer(&part))
	t.parts = append(t.parts, partBuilder{root: s.orig, state: s.state})
}

// moveAll moves what is in batch to the parts, as p has it. Afterwards it knows of no part.
func moveAll[S resourceSlice](t *transplant, batch S, p *plan) {
	root := (*sliceLayout)(unsafe.Pointer(&batch)).orig
	t.counting = true
	t.walk(*root, p)
	for i := range t.parts {
		t.parts[i].allocate()
	}
	t.counting = false
	t.walk(*root, p)
	for i := range t.parts {
		for l := range t.parts[i].lists {
			t.parts[i].lists[l].end()
		}
	}
	*root = nil
	clear(t.parts) // they are the caller's now
}

func (b *partBuilder) allocate() {
	total := 0
	for i := range b.lists {
		total += b.lists[i].count
	}
	room := make(list, total)
	for i := range b.lists {
		n := b.lists[i].count
		b.lists[i].room = room[:n:n]
		room = room[n:]
	}
	b.resources.allocate()
	b.scopes.allocate()
	b.metrics.allocate()
	b.pairs.allocate()
	b.texts.allocate()
	b.at = [len(b.at)]int{}
	b.lists[resourceLevel].begin(b.root, nil)
}

func (t *transplant) walk(batch list, p *plan) {
	p.rewind()
	var resource split[resourceLayout]
	var scope split[scopeLayout]
	var metric split[metricLayout]
	for _, r := range batch {
		if part := p.next(); part != mixed {
			t.push(&t.parts[part], resourceLevel, r)
			continue
		}
		resource.enter(r)
		for _, s := range resource.layout.Scopes {
			if part := p.next(); part != mixed {
				b := &t.parts[part]
				t.openResource(b, &resource)
				t.push(b, scopeLevel, s)
				continue
			}
			scope.enter(s)
			for _, item := range scope.layout.Items {
				if part := p.next(); part != mixed {
					b := &t.parts[part]
					t.openResource(b, &resource)
					t.openScope(b, &scope)
					t.push(b, itemLevel, item)
					continue
				}
				metric.enter(item)
				points := pointsOf(metric.layout).DataPoints
				for i, part := range p.take(len(points)) {
					b := &t.parts[part]
					if b.at[itemLevel] != metric.at {
						t.openResource(b, &resource)
						t.openScope(b, &scope)
						t.openMetric(b, &metric)
					}
					t.push(b, pointLevel, points[i])
				}
			}
		}
	}
}

// split is an element of several parts on the walk.
type split[T any] struct {
	layout *T
	at     int  // its number on the walk, from 1
	taken  bool // it has gone to a part, and the others get copies
}

func (s *split[T]) enter(element unsafe.Pointer) {
	*s = split[T]{layout: (*T)(element), at: s.at + 1}
}

// take is true once for each element.
func (s *split[T]) take() bool {
	taken := s.taken
	s.taken = true
	return !taken
}

// push adds an element to the list of b on that level.
func (t *transplant) push(b *partBuilder, level int, element unsafe.Pointer) {
	if t.counting {
		b.lists[level].countOne()
		return
	}
	b.lists[level].push(element)
}

// list begins the list of b on that level.
func (t *transplant) list(b *partBuilder, level int, l *list, inPlace list) {
	if t.counting {
		b.lists[level].inPlace = inPlace
		return
	}
	b.lists[level].begin(l, inPlace)
}

// openResource sees to it that b has its part of the resource.
func (t *transplant) openResource(b *partBuilder, s *split[resourceLayout]) {
	if b.at[resourceLevel] == s.at {
		return
	}
	b.at[resourceLevel] = s.at
	from := s.layout
	if s.take() {
		t.push(b, resourceLevel, unsafe.Pointer(from))
		t.list(b, scopeLevel, &from.Scopes, from.Scopes)
		return
	}
	if t.counting {
		b.resources.count++
		t.countAttributes(b, from.Resource.Attributes)
		t.push(b, resourceLevel, nil)
		t.list(b, scopeLevel, nil, nil)
		return
	}
	to := b.resources.one()
	to.SchemaUrl = from.SchemaUrl
	to.Resource.DroppedAttributesCount = from.Resource.DroppedAttributesCount
	t.copyAttributes(b, &to.Resource.Attributes, &from.Resource.Attributes)
	if len(from.Resource.EntityRefs) > 0 {
		copyResource(b.state, &to.Resource, &from.Resource)
	}
	t.push(b, resourceLevel, unsafe.Pointer(to))
	t.list(b, scopeLevel, &to.Scopes, nil)
}

// openScope sees to it that b has its part of the scope, in its open resource.
func (t *transplant) openScope(b *partBuilder, s *split[scopeLayout]) {
	if b.at[scopeLevel] == s.at {
		return
	}
	b.at[scopeLevel] = s.at
	from := s.layout
	if s.take() {
		t.push(b, scopeLevel, unsafe.Pointer(from))
		t.list(b, itemLevel, &from.Items, from.Items)
		return
	}
	if t.counting {
		b.scopes.count++
		t.countAttributes(b, from.Scope.Attributes)
		t.push(b, scopeLevel, nil)
		t.list(b, itemLevel, nil, nil)
		return
	}
	to := b.scopes.one()
	to.SchemaUrl = from.SchemaUrl
	to.Scope.Name = from.Scope.Name
	to.Scope.Version = from.Scope.Version
	to.Scope.DroppedAttributesCount = from.Scope.DroppedAttributesCount
	t.copyAttributes(b, &to.Scope.Attributes, &from.Scope.Attributes)
	t.push(b, scopeLevel, unsafe.Pointer(to))
	t.list(b, itemLevel, &to.Items, nil)
}

// openMetric gives b its part of the metric, in its open scope.
func (t *transplant) openMetric(b *partBuilder, s *split[metricLayout]) {
	b.at[itemLevel] = s.at
	from := s.layout
	points := pointsOf(from)
	if s.take() {
		t.push(b, itemLevel, unsafe.Pointer(from))
		t.list(b, pointLevel, &points.DataPoints, points.DataPoints)
		return
	}
	if t.counting {
		b.metrics.count++
		t.countAttributes(b, from.Metadata)
		t.push(b, itemLevel, nil)
		t.list(b, pointLevel, nil, nil)
		return
	}
	to := b.metrics.one()
	to.metric.Name = from.Name
	to.metric.Description = from.Description
	to.metric.Unit = from.Unit
	t.copyAttributes(b, &to.metric.Metadata, &from.Metadata)
	to.data.Points = &to.points
	typ := inside(&from.Data).typ
	*inside(&to.metric.Data) = anyLayout{typ, unsafe.Pointer(&to.data)}
	switch typ {
	case t.types.sum:
		to.points.AggregationTemporality = points.AggregationTemporality
		to.points.IsMonotonic = points.IsMonotonic
	case t.types.histograms[0], t.types.histograms[1]:
		to.points.AggregationTemporality = points.AggregationTemporality
	}
	t.push(b, itemLevel, unsafe.Pointer(&to.metric))
	t.list(b, pointLevel, &to.points.DataPoints, nil)
}

// plain is true if all values are strings or nothing: for these there is room in the arenas. Others are left to pdata.
func (t *transplant) plain(attrs []pairLayout) bool {
	for i := range attrs {
		if typ := inside(&attrs[i].Value.Value).typ; typ != t.types.text && typ != nil {
			return false
		}
	}
	return true
}

func (t *transplant) countAttributes(b *partBuilder, attrs []pairLayout) {
	if t.plain(attrs) {
		b.pairs.count += len(attrs)
		b.texts.count += len(attrs)
	}
}

func (t *transplant) copyAttributes(b *partBuilder, to, from *[]pairLayout) {
	if len(*from) == 0 {
		return
	}
	if !t.plain(*from) {
		copyMap(b.state, to, from)
		return
	}
	pairs := b.pairs.some(len(*from))
	texts := b.texts.some(len(*from))
	for i := range pairs {
		pairs[i] = (*from)[i]
		if value := inside(&pairs[i].Value.Value); value.pointer != nil {
			texts[i] = *(*stringLayout)(value.pointer)
			value.pointer = unsafe.Pointer(&texts[i])
		}
	}
	*to = pairs
}
