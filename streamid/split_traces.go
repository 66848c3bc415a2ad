// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid

import "go.opentelemetry.io/collector/pdata/ptrace"

// Traces splits td by the owner of each span. See Splitter.
func (s *Splitter) Traces(td ptrace.Traces, n int, owner func(key uint64) int, dst []Part[ptrace.Traces]) (parts []Part[ptrace.Traces], missing int) {
	c := s.begin(SignalTraces, n, owner)
	defer s.end(c)
	c.planTraces(td)
	if c.single() {
		return append(dst, Part[ptrace.Traces]{Owner: c.owners[0], Batch: td}), c.missing
	}
	mustBeMutable(td.IsReadOnly())
	parts = dst
	for _, o := range c.owners {
		parts = append(parts, Part[ptrace.Traces]{Owner: o, Batch: ptrace.NewTraces()})
	}
	if !c.transplant.begin(SignalTraces) {
		moveTraces(td, parts[len(dst):], &c.plan)
		return parts, c.missing
	}
	for _, p := range parts[len(dst):] {
		addPart(&c.transplant, p.Batch.ResourceSpans())
	}
	moveAll(&c.transplant, td.ResourceSpans(), &c.plan)
	return parts, c.missing
}

func (c *splitting) planTraces(td ptrace.Traces) {
	for _, rs := range td.ResourceSpans().All() {
		if key, all := c.enterResource(rs.Resource()); all {
			c.add(theBatch, c.partFor(key))
			if c.lacking {
				for _, ss := range rs.ScopeSpans().All() {
					c.missing += ss.Spans().Len()
				}
			}
			continue
		}
		resource := c.open()
		for _, ss := range rs.ScopeSpans().All() {
			if key, all := c.enterScope(ss.Scope()); all {
				c.add(resource, c.partFor(key))
				continue
			}
			scope := c.open()
			for _, span := range ss.Spans().All() {
				if c.kind == keyTraceID {
					c.add(scope, c.partFor(c.traceID(span.TraceID())))
				} else {
					c.add(scope, c.partFor(c.span(span)))
				}
				if c.lacking {
					c.missing++
				}
			}
			c.close(resource, scope)
		}
		c.close(theBatch, resource)
	}
}

// moveTraces moves what is in td to the parts, by the exported methods of pdata.
func moveTraces(td ptrace.Traces, parts []Part[ptrace.Traces], p *plan) {
	dests := make([]tracesPart, len(parts))
	for i := range dests {
		dests[i] = tracesPart{resources: parts[i].Batch.ResourceSpans()}
	}
	resourceAt, scopeAt := 0, 0
	p.rewind()
	for _, rs := range td.ResourceSpans().All() {
		if part := p.next(); part != mixed {
			rs.MoveTo(dests[part].resources.AppendEmpty())
			continue
		}
		resourceAt++
		for _, ss := range rs.ScopeSpans().All() {
			if part := p.next(); part != mixed {
				d := &dests[part]
				d.openResource(rs, resourceAt)
				ss.MoveTo(d.resource.ScopeSpans().AppendEmpty())
				continue
			}
			scopeAt++
			for _, span := range ss.Spans().All() {
				d := &dests[p.next()]
				d.openResource(rs, resourceAt)
				d.openScope(ss, scopeAt)
				span.MoveTo(d.scope.Spans().AppendEmpty())
			}
		}
	}
	td.ResourceSpans().RemoveIf(func(ptrace.ResourceSpans) bool { return true })
}

// tracesPart is a part that is being built, with what is open in it and where the walk was then.
type tracesPart struct {
	resources ptrace.ResourceSpansSlice
	resource  ptrace.ResourceSpans
	scope     ptrace.ScopeSpans

	resourceAt, scopeAt int
}

func (d *tracesPart) openResource(from ptrace.ResourceSpans, at int) {
	if d.resourceAt == at {
		return
	}
	d.resourceAt, d.resource = at, d.resources.AppendEmpty()
	from.Resource().CopyTo(d.resource.Resource())
	d.resource.SetSchemaUrl(from.SchemaUrl())
}

func (d *tracesPart) openScope(from ptrace.ScopeSpans, at int) {
	if d.scopeAt == at {
		return
	}
	d.scopeAt, d.scope = at, d.resource.ScopeSpans().AppendEmpty()
	from.Scope().CopyTo(d.scope.Scope())
	d.scope.SetSchemaUrl(from.SchemaUrl())
}
