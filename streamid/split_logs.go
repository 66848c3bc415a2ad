// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid

import "go.opentelemetry.io/collector/pdata/plog"

// Logs splits ld by the owner of each log record. See Splitter.
func (s *Splitter) Logs(ld plog.Logs, n int, owner func(key uint64) int, dst []Part[plog.Logs]) (parts []Part[plog.Logs], missing int) {
	c := s.begin(SignalLogs, n, owner)
	defer s.end(c)
	c.planLogs(ld)
	if c.single() {
		return append(dst, Part[plog.Logs]{Owner: c.owners[0], Batch: ld}), c.missing
	}
	mustBeMutable(ld.IsReadOnly())
	parts = dst
	for _, o := range c.owners {
		parts = append(parts, Part[plog.Logs]{Owner: o, Batch: plog.NewLogs()})
	}
	if !c.transplant.begin(SignalLogs) {
		moveLogs(ld, parts[len(dst):], &c.plan)
		return parts, c.missing
	}
	for _, p := range parts[len(dst):] {
		addPart(&c.transplant, p.Batch.ResourceLogs())
	}
	moveAll(&c.transplant, ld.ResourceLogs(), &c.plan)
	return parts, c.missing
}

func (c *splitting) planLogs(ld plog.Logs) {
	for _, rl := range ld.ResourceLogs().All() {
		if key, all := c.enterResource(rl.Resource()); all {
			c.add(theBatch, c.partFor(key))
			if c.lacking {
				for _, sl := range rl.ScopeLogs().All() {
					c.missing += sl.LogRecords().Len()
				}
			}
			continue
		}
		resource := c.open()
		for _, sl := range rl.ScopeLogs().All() {
			if key, all := c.enterScope(sl.Scope()); all {
				c.add(resource, c.partFor(key))
				continue
			}
			scope := c.open()
			for _, record := range sl.LogRecords().All() {
				if c.kind == keyTraceID {
					c.add(scope, c.partFor(c.traceID(record.TraceID())))
				} else {
					c.add(scope, c.partFor(c.record(record)))
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

// moveLogs moves what is in ld to the parts, by the exported methods of pdata.
func moveLogs(ld plog.Logs, parts []Part[plog.Logs], p *plan) {
	dests := make([]logsPart, len(parts))
	for i := range dests {
		dests[i] = logsPart{resources: parts[i].Batch.ResourceLogs()}
	}
	resourceAt, scopeAt := 0, 0
	p.rewind()
	for _, rl := range ld.ResourceLogs().All() {
		if part := p.next(); part != mixed {
			rl.MoveTo(dests[part].resources.AppendEmpty())
			continue
		}
		resourceAt++
		for _, sl := range rl.ScopeLogs().All() {
			if part := p.next(); part != mixed {
				d := &dests[part]
				d.openResource(rl, resourceAt)
				sl.MoveTo(d.resource.ScopeLogs().AppendEmpty())
				continue
			}
			scopeAt++
			for _, record := range sl.LogRecords().All() {
				d := &dests[p.next()]
				d.openResource(rl, resourceAt)
				d.openScope(sl, scopeAt)
				record.MoveTo(d.scope.LogRecords().AppendEmpty())
			}
		}
	}
	ld.ResourceLogs().RemoveIf(func(plog.ResourceLogs) bool { return true })
}

// logsPart is a part that is being built, with what is open in it and where the walk was then.
type logsPart struct {
	resources plog.ResourceLogsSlice
	resource  plog.ResourceLogs
	scope     plog.ScopeLogs

	resourceAt, scopeAt int
}

func (d *logsPart) openResource(from plog.ResourceLogs, at int) {
	if d.resourceAt == at {
		return
	}
	d.resourceAt, d.resource = at, d.resources.AppendEmpty()
	from.Resource().CopyTo(d.resource.Resource())
	d.resource.SetSchemaUrl(from.SchemaUrl())
}

func (d *logsPart) openScope(from plog.ScopeLogs, at int) {
	if d.scopeAt == at {
		return
	}
	d.scopeAt, d.scope = at, d.resource.ScopeLogs().AppendEmpty()
	from.Scope().CopyTo(d.scope.Scope())
	d.scope.SetSchemaUrl(from.SchemaUrl())
}
