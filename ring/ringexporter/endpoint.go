// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"github.com/deltaring/deltaring/ring"
	"github.com/deltaring/deltaring/ring/resolve"
)

// ringLimit is the most members that a ring can have, see ring.New.
const ringLimit = 65536

// endpoint is a member and where it is.
type endpoint struct {
	ring.Member
	address string // as the OTLP exporter wants it
}

func endpointsOf(members []resolve.Member) []endpoint {
	list := make([]endpoint, len(members))
	for i, m := range members {
		list[i] = endpoint{Member: m.Member, address: m.Address}
	}
	return list
}
