// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPartialSuccessIsCounted(t *testing.T) {
	t.Run("metrics", func(t *testing.T) {
		testPartialSuccess(t, &metrics, metricBatch)
	})
	t.Run("traces", func(t *testing.T) {
		testPartialSuccess(t, &traces, traceBatch)
	})
	t.Run("logs", func(t *testing.T) {
		testPartialSuccess(t, &logs, logBatch)
	})
}

func testPartialSuccess[B batch](
	t *testing.T, sig *signal[B], make func(int64, ...string) B,
) {
	for _, queues := range []bool{true, false} {
		workers := startWorkers(t, "a")
		cfg := staticConfig(t, workers)
		cfg.RoutingKey = ""
		if !queues {
			withoutQueues(cfg)
		}
		g := startGatewayOf(t, cfg, sig)
		const items = 10
		send := func(p partialSuccess) {
			before := len(workers["a"].got())
			workers["a"].setPartial(p)
			require.NoError(t, g.consume(t.Context(), make(0, streamNames(items)...)))
			workers["a"].awaitItems(t, before+items)
		}
		send(partialSuccess{})
		send(partialSuccess{3, "too old"})
		send(partialSuccess{2, ""})
		send(partialSuccess{0, "please update"})
		send(partialSuccess{1000, "too\nold"}) // more than there were
		send(partialSuccess{-1, "broken"})
		for i := range 2 * maxReasons {
			send(partialSuccess{1, fmt.Sprintf("trace %d", i)})
		}
		require.NoError(t, g.stop())
		outcome := func(name string) int64 {
			return sum(t, g, "otelcol_ring_items", "member", "a", "outcome", name)
		}
		reason := func(reason string) int64 {
			return sum(t, g, "otelcol_ring_rejected", "member", "a", "reason", reason)
		}
		const rejected = 3 + 2 + items + 2*maxReasons
		assert.EqualValues(t, rejected, outcome("rejected"))
		assert.EqualValues(t, (6+2*maxReasons)*items-rejected, outcome("sent"))
		assert.EqualValues(t, rejected, sum(t, g, "otelcol_ring_rejected"))
		assert.EqualValues(t, 3+items, reason("too old"))
		assert.EqualValues(t, 2, reason(noReason))
		assert.EqualValues(t, 1, reason("trace 0"))
		assert.EqualValues(t, 2*maxReasons-(maxReasons-2), reason(otherReason), "their number is bounded")
		assert.Equal(t, 6+2*maxReasons, workers["a"].requests, "nothing is sent again")
		assert.Len(t, g.logs.FilterMessageSnippet("with a warning").All(), 2)
	}
}
