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

// Splitter splits batches by the owner of each data point, span or log record. The zero value is ready to use. Set its
// fields before the first use and do not change them afterwards; then it is safe for concurrent use, as long as each batch
// is used by one goroutine. It must not be copied.
//
// All methods work alike. They call owner with routing keys to get numbers from 0 to n-1, and append to dst one part for
// each owner of something in the batch, in the order in which the owners first occur.
//
//   - Data with one owner stays whole. A batch with one owner is returned unchanged: it is the same object, and nothing is
//     allocated if dst has room. Within parts, the same holds for resources, scopes and metrics with one owner.
//   - Where owners differ, points, spans and log records are moved, never copied. The metric, scope and resource around them
//     is duplicated for each owner, with all its pdata fields: attributes, schema URL, description, metadata and so on.
//   - The order of points is kept, and so that of each stream's points, and the order of metrics, scopes and resources.
//   - An empty metric, scope or resource whose key would come from its points goes with the element around it if that has
//     one owner, otherwise to the first owner in the batch. A batch in which all are empty goes to the owner of key 0.
//   - Data that lacks its key is routed by its resource, as with the key "resource". That is data without service.name, with
//     a trace ID of zeros, or with none of the attributes; data with some of the attributes is routed by these. Attributes
//     with no value or an empty string count as missing. The result missing is the number of points, spans or log records
//     that lack their key or a part of it.
//
// The batch is consumed: unless it is returned unchanged, it is empty afterwards. The parts belong to the caller and share
// nothing. Nobody else may read the batch meanwhile; a Collector component that splits must declare that it mutates data.
//
// The methods panic if Key does not fit the signal, which [Key.Check] tells in advance; if owner returns a number out of
// range; and if a read-only batch has several owners. The batch is then unchanged. owner may be called repeatedly with the
// same key.
type Splitter struct {
	Key  Key
	Seed Seed // of all hashes; the same wherever owners must agree

	pool sync.Pool // of *splitting
}

// Part is the part of a batch that belongs to one owner.
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
