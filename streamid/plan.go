// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid

// plan says which part each element of a batch goes to. It has a node for the batch, followed by the nodes of the
// elements in it, each of them followed by those in it in turn, but only where they differ: what goes to one part as a
// whole has a single node.
type plan struct {
	nodes []int32
	read  int // the number of nodes that next has returned
}

// A node is the number of a part, or one of these.
const (
	// vacant is an element that has nothing to tell its part by.
	vacant = -1
	// mixed is an element of several parts: the nodes of what is in it follow.
	mixed = -2
)

// theBatch is the place of the batch's node.
const theBatch = 0

// begin begins the plan of a batch.
func (p *plan) begin() {
	p.nodes = append(p.nodes[:0], vacant)
}

// open begins an element whose parts are still to be seen, and returns its place.
func (p *plan) open() (place int) {
	p.nodes = append(p.nodes, vacant)
	return len(p.nodes) - 1
}

// add adds an element that goes to one part as a whole. It is in the open element at place in.
func (p *plan) add(in int, part int32) {
	p.nodes = append(p.nodes, part)
	p.merge(in, part)
}

// close ends the latest open element, which is in the one at place in.
func (p *plan) close(in, place int) {
	node := p.nodes[place]
	if node != mixed {
		p.nodes = p.nodes[:place+1]
	}
	p.merge(in, node)
}

func (p *plan) merge(in int, node int32) {
	switch p.nodes[in] {
	case node, mixed:
	case vacant:
		p.nodes[in] = node
	default:
		if node != vacant {
			p.nodes[in] = mixed
		}
	}
}

// whole returns the node of the batch.
func (p *plan) whole() int32 { return p.nodes[theBatch] }

// rewind makes next begin with the first element in the batch.
func (p *plan) rewind() { p.read = theBatch + 1 }

// next returns the part of the next element, or mixed. What is vacant goes to part 0, that of the batch's first point.
func (p *plan) next() int32 {
	node := p.nodes[p.read]
	p.read++
	if node == vacant {
		return 0
	}
	return node
}

// take returns the parts of the next n elements, all of which are points.
func (p *plan) take(n int) []int32 {
	p.read += n
	return p.nodes[p.read-n : p.read]
}
