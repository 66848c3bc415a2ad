// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid

import (
	"fmt"
	"sync"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// Splitter splits batches by the owner of each data point, span or log record. The zero value is ready for use. Its fields
// are set before the first use and not changed thereafter; then it is safe for concurrent use, each batch being in one
// goroutine. It must not be copied.
//
// The methods work alike. They ask owner for the owners of routing keys, numbers from 0 to n-1, and append to dst one
// part for each owner that has something in the batch, in the order in which the owners come first.
//
//   - What has one owner stays whole. A batch with one owner is handed through untouched: it is the same object, and nothing
//     is allocated if dst has room. Within parts, so are resources, scopes and metrics with one owner.
//   - Where owners differ, points, spans and log records are moved, never copied. What they are in is there once for
//     each owner, with all that pdata has of it: attributes, schema URL, description, metadata and so on.
//   - Order is kept: that of points, and so of a stream's points, and that of metrics, scopes and resources.
//   - An empty metric, scope or resource whose key would be that of its points goes along with what it is in, if that has
//     one owner; if not, to the first owner in the batch. A batch in which all are empty goes to the owner of key 0.
//   - Data that lacks its key is routed by its resource, as by the key "resource": data with no service.name, with a trace
//     ID of zeros, or with none of the attributes. If it has some of the attributes, it is routed by these. Attributes with
//     no value, or with an empty string, are lacking too. The number missing says how many points, spans or log records
//     lack their key or a part of it.
//
// The batch is used up: unless it is handed through it is empty afterwards. The parts belong to the caller and share nothing.
// Nobody else may look into the batch meanwhile; a Collector component that splits must declare that it mutates data.
//
// The methods panic if Key does not go with the signal, which [Key.Check] tells beforehand; if owner returns a number out of
// range; and if a read-only batch has several owners. Nothing has changed then. owner may be asked for a key repeatedly.
type Splitter struct {
	Key  Key
	Seed Seed // of all hashes; the same wherever owners must agree

	pool sync.Pool // of *splitting
}

// Part is what one owner has of a batch.
type Part[B pmetric.Metrics | ptrace.Traces | plog.Logs] struct {
	Owner int
	Batch B
}

// resourceSlice is the resources of a batch.
type resourceSlice interface {
	pmetric.ResourceMetricsSlice | ptrace.ResourceSpansSlice | plog.ResourceLogsSlice
}

// splitting is one call of a Splitter. It is reused, and holds on to no data meanwhile.
type splitting struct {
	route
	plan
	transplant

	n       int
	ownerOf func(key uint64) int
	owners  []int   // by part
	partOf  []int32 // by owner: 1 + its part, or 0 if it has none
	missing int
}

func (s *Splitter) begin(signal Signal, n int, owner func(key uint64) int) *splitting {
	kind := s.Key.kindFor(signal)
	c, _ := s.pool.Get().(*splitting)
	if c == nil {
		c = new(splitting)
	}
	c.route.begin(kind, &s.Key, s.Seed)
	c.plan.begin()
	c.n, c.ownerOf, c.missing = n, owner, 0
	if len(c.partOf) < n {
		c.partOf = make([]int32, n)
	}
	return c
}

func (s *Splitter) end(c *splitting) {
	for _, o := range c.owners {
		c.partOf[o] = 0
	}
	c.owners = c.owners[:0]
	c.ownerOf = nil
	c.resource = pcommon.Resource{}
	s.pool.Put(c)
}

// partFor returns the part with this key.
func (c *splitting) partFor(key uint64) int32 {
	o := c.ownerOf(key)
	if o < 0 || o >= c.n {
		panic(fmt.Sprintf("streamid: owner of key %#x is %d, want 0 to %d", key, o, c.n-1))
	}
	if c.partOf[o] == 0 {
		c.owners = append(c.owners, o)
		c.partOf[o] = int32(len(c.owners))
	}
	return c.partOf[o] - 1
}

// single is true if the batch that was planned has one owner.
func (c *splitting) single() bool {
	if c.whole() == vacant {
		c.partFor(0)
	}
	return c.whole() != mixed
}

// mustBeMutable panics if a batch that has several owners is read-only.
func mustBeMutable(readOnly bool) {
	if readOnly {
		panic("streamid: a read-only batch with several owners cannot be split")
	}
}
