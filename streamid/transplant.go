// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !purego

package streamid

import "unsafe"

// transplant builds the parts of a batch by the layout of pdata. It walks over the batch and its plan twice: to count what
// each part needs, and to build. Where an element is split, the first part to have something of it gets the element
// itself, with what remains in it, and the others get copies.
type transplant struct {
	layout   *pdataLayout
	signal   *signalLayout
	parts    []partBuilder
	counting bool
}

// partBuilder builds one part. It allocates once per type. Parts share no memory: one that is kept for long does not keep
// the others.
type partBuilder struct {
	root  *list // the part's resources
	state state

	// at tells for each level which element of the walk is open: the one whose part of the next level is being built.
	at [levels - 1]int

	lists     [levels]listBuilder
	resources arena
	scopes    arena
	metrics   [len(pdataLayout{}.kinds)]arena // by kind, each with its data and its points
	pairs     arena
	texts     arena
}

// The levels of a batch. Items are metrics, spans or log records.
const (
	resourceLevel = iota
	scopeLevel
	itemLevel
	pointLevel
	levels
)

// begin is false if pdata is not laid out as layout.go has it.
func (t *transplant) begin(signal Signal) bool {
	l, err := layout()
	if err != nil {
		return false
	}
	t.layout, t.signal, t.parts = l, &l.signals[signal], t.parts[:0]
	return true
}

// addPart adds a part, which is empty as yet.
func addPart[S resourceSlice](t *transplant, part S) {
	at := &t.signal.slice
	root, state := *at.Orig.in(unsafe.Pointer(&part)), *at.State.in(unsafe.Pointer(&part))
	t.parts = append(t.parts, partBuilder{root: root, state: state})
}

// moveAll moves what is in batch to the parts, as p has it. Afterwards it knows of no part.
func moveAll[S resourceSlice](t *transplant, batch S, p *plan) {
	root := *t.signal.slice.Orig.in(unsafe.Pointer(&batch))
	t.counting = true
	t.walk(*root, p)
	for i := range t.parts {
		t.parts[i].allocate(t)
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

func (b *partBuilder) allocate(t *transplant) {
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
	b.resources.allocate(&t.signal.resource.block)
	b.scopes.allocate(&t.signal.scope.block)
	for i := range b.metrics {
		b.metrics[i].allocate(&t.layout.kinds[i].copy)
	}
	b.pairs.allocate(&t.layout.pair.block)
	b.texts.allocate(&t.layout.text.block)
	b.at = [len(b.at)]int{}
	b.lists[resourceLevel].begin(b.root, nil)
}

func (t *transplant) walk(batch list, p *plan) {
	p.rewind()
	var resource, scope split
	var metric splitMetric
	for _, r := range batch {
		if part := p.next(); part != mixed {
			t.push(&t.parts[part], resourceLevel, r)
			continue
		}
		resource.enter(r)
		for _, s := range *t.signal.resource.Scopes.in(resource.element) {
			if part := p.next(); part != mixed {
				b := &t.parts[part]
				if b.at[resourceLevel] != resource.at {
					t.openResource(b, &resource)
				}
				t.push(b, scopeLevel, s)
				continue
			}
			scope.enter(s)
			for _, item := range *t.signal.scope.Items.in(scope.element) {
				if part := p.next(); part != mixed {
					b := &t.parts[part]
					if b.at[scopeLevel] != scope.at {
						if b.at[resourceLevel] != resource.at {
							t.openResource(b, &resource)
						}
						t.openScope(b, &scope)
					}
					t.push(b, itemLevel, item)
					continue
				}
				metric.enter(t.layout, item)
				t.walkPoints(p, &resource, &scope, &metric)
			}
		}
	}
}

// walkPoints has the inner loop of a split.
func (t *transplant) walkPoints(p *plan, resource, scope *split, metric *splitMetric) {
	points := *metric.list
	parts := p.take(len(points))
	points = points[:len(parts)]
	builders := t.parts
	for i, part := range parts {
		b := &builders[part]
		if b.at[itemLevel] != metric.at {
			if b.at[scopeLevel] != scope.at {
				if b.at[resourceLevel] != resource.at {
					t.openResource(b, resource)
				}
				t.openScope(b, scope)
			}
			t.openMetric(b, metric)
		}
		if l := &b.lists[pointLevel]; t.counting {
			l.countOne()
		} else {
			l.push(points[i])
		}
	}
}

// split is an element of several parts on the walk.
type split struct {
	element unsafe.Pointer
	at      int  // its number on the walk, from 1
	taken   bool // it has gone to a part, and the others get copies
}

func (s *split) enter(element unsafe.Pointer) {
	*s = split{element: element, at: s.at + 1}
}

// splitMetric is a metric of several parts.
type splitMetric struct {
	split
	kind   int
	points unsafe.Pointer // of pointsLayout
	list   *list          // of these
}

func (s *splitMetric) enter(l *pdataLayout, metric unsafe.Pointer) {
	s.split.enter(metric)
	data := inside(l.metric.Data.in(metric))
	s.kind = 0
	for l.kinds[s.kind].typ != data.typ {
		s.kind++ // a metric that has points is of one of the kinds
	}
	k := &l.kinds[s.kind]
	s.points = *k.data.Points.in(data.pointer)
	s.list = k.points.DataPoints.in(s.points)
}

// take is true once for each element.
func (s *split) take() bool {
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

// openResource gives b its part of the resource.
func (t *transplant) openResource(b *partBuilder, s *split) {
	b.at[resourceLevel] = s.at
	at := &t.signal.resource
	from := s.element
	if s.take() {
		t.push(b, resourceLevel, from)
		scopes := at.Scopes.in(from)
		t.list(b, scopeLevel, scopes, *scopes)
		return
	}
	if t.counting {
		b.resources.count++
		t.countAttributes(b, at.Resource.Attributes.in(from))
		t.push(b, resourceLevel, nil)
		t.list(b, scopeLevel, nil, nil)
		return
	}
	to := b.resources.one(&at.block)
	*at.SchemaUrl.in(to) = *at.SchemaUrl.in(from)
	*at.Resource.DroppedAttributesCount.in(to) = *at.Resource.DroppedAttributesCount.in(from)
	t.copyAttributes(b, at.Resource.Attributes.in(to), at.Resource.Attributes.in(from))
	if len(*at.Resource.EntityRefs.in(from)) > 0 {
		t.layout.copyResource(b.state, at.Resource.in(to), at.Resource.in(from))
	}
	t.push(b, resourceLevel, to)
	t.list(b, scopeLevel, at.Scopes.in(to), nil)
}

// openScope gives b its part of the scope, in its open resource.
func (t *transplant) openScope(b *partBuilder, s *split) {
	b.at[scopeLevel] = s.at
	at := &t.signal.scope
	from := s.element
	if s.take() {
		t.push(b, scopeLevel, from)
		items := at.Items.in(from)
		t.list(b, itemLevel, items, *items)
		return
	}
	if t.counting {
		b.scopes.count++
		t.countAttributes(b, at.Scope.Attributes.in(from))
		t.push(b, scopeLevel, nil)
		t.list(b, itemLevel, nil, nil)
		return
	}
	to := b.scopes.one(&at.block)
	*at.SchemaUrl.in(to) = *at.SchemaUrl.in(from)
	*at.Scope.Name.in(to) = *at.Scope.Name.in(from)
	*at.Scope.Version.in(to) = *at.Scope.Version.in(from)
	*at.Scope.DroppedAttributesCount.in(to) = *at.Scope.DroppedAttributesCount.in(from)
	t.copyAttributes(b, at.Scope.Attributes.in(to), at.Scope.Attributes.in(from))
	t.push(b, scopeLevel, to)
	t.list(b, itemLevel, at.Items.in(to), nil)
}

// openMetric gives b its part of the metric, in its open scope.
func (t *transplant) openMetric(b *partBuilder, s *splitMetric) {
	b.at[itemLevel] = s.at
	at := &t.layout.metric
	from := s.element
	items, list := &b.lists[itemLevel], &b.lists[pointLevel]
	first := s.take()
	if t.counting {
		items.countOne()
		list.inPlace = nil
		if first {
			list.inPlace = *s.list
			return
		}
		b.metrics[s.kind].count++
		t.countAttributes(b, at.Metadata.in(from))
		return
	}
	if first {
		items.push(from)
		list.begin(s.list, *s.list)
		return
	}
	k := &t.layout.kinds[s.kind]
	to := b.metrics[s.kind].one(&k.copy)
	data, points := unsafe.Add(to, k.dataAt), unsafe.Add(to, k.pointsAt)
	*at.Name.in(to) = *at.Name.in(from)
	*at.Description.in(to) = *at.Description.in(from)
	*at.Unit.in(to) = *at.Unit.in(from)
	if metadata := at.Metadata.in(from); metadata.len > 0 {
		t.copyAttributes(b, at.Metadata.in(to), metadata)
	}
	*inside(at.Data.in(to)) = anyLayout{k.typ, data}
	*k.data.Points.in(data) = points
	if k.hasTemporality {
		*k.points.AggregationTemporality.in(points) = *k.points.AggregationTemporality.in(s.points)
	}
	if k.hasMonotonic {
		*k.points.IsMonotonic.in(points) = *k.points.IsMonotonic.in(s.points)
	}
	items.push(to)
	list.begin(k.points.DataPoints.in(points), nil)
}

// plain is true if all values are strings or nothing: for these there is room in the arenas. Others are left to pdata.
func (t *transplant) plain(attrs *pairs) bool {
	value, size := &t.layout.pair.Value.Value, t.layout.pair.size
	for i := range attrs.len {
		pair := unsafe.Add(attrs.first, uintptr(i)*size)
		if typ := inside(value.in(pair)).typ; typ != t.layout.textType && typ != nil {
			return false
		}
	}
	return true
}

func (t *transplant) countAttributes(b *partBuilder, attrs *pairs) {
	if attrs.len > 0 && t.plain(attrs) {
		b.pairs.count += attrs.len
		b.texts.count += attrs.len
	}
}

func (t *transplant) copyAttributes(b *partBuilder, to, from *pairs) {
	n := from.len
	if n == 0 {
		return
	}
	if !t.plain(from) {
		t.layout.copyMap(b.state, to, from)
		return
	}
	at, text := &t.layout.pair, &t.layout.text
	first := b.pairs.some(&at.block, n)
	texts := b.texts.some(&text.block, n)
	for i := range uintptr(n) {
		to, from := unsafe.Add(first, i*at.size), unsafe.Add(from.first, i*at.size)
		*at.Key.in(to) = *at.Key.in(from)
		*at.KeyStrindex.in(to) = *at.KeyStrindex.in(from)
		value := *inside(at.Value.Value.in(from))
		if value.pointer != nil {
			copied := unsafe.Add(texts, i*text.size)
			*text.StringValue.in(copied) = *text.StringValue.in(value.pointer)
			value.pointer = copied
		}
		*inside(at.Value.Value.in(to)) = value
	}
	*to = pairs{first, n, n}
}
