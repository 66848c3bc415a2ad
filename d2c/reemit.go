// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"context"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// Reemit emits the latest sample, at the current time, of each stream that has been quiet for Config.ReemitInterval: nothing
// of it was counted or given out for so long. It calls give with batches of at most a thousand samples, one after the other,
// each with a context that carries the tenant, and stops at an error of give, of the store or of ctx. It returns how many
// samples give accepted; the others follow an interval later.
//
// A sample is given out once its time is stored, as in Convert, so the stream's next sample from Convert is later. The
// caller must keep the order: samples from Convert must reach the destination of give before later samples of the same
// stream from Reemit do, and the other way round. For this, Reemit calls hold before each batch, and release once give has
// returned; no call of Convert may be in progress in between. If the results of earlier calls are still on their way, hold
// returns the time at which the oldest of these calls began, and streams counted since then are left out. Otherwise it
// returns a zero time. hold may be nil.
//
// The attributes of a stream come from its latest delta and are not stored, so after a restart a stream waits for its next
// delta. With shared state each worker emits the streams it has counted. If several workers have counted a stream, the first
// one emits it; the others learn that from the store and leave the stream to whoever counts it next. While the store fails,
// no stream is emitted again. Neither is a stream whose latest sample is a "no recorded value" point. With GapRestartIfMoved
// a stream that was not counted since the ring changed, according to the batches of any gateway, waits for its next delta,
// because it may have moved to another worker that emits it. A worker to which gateways no longer send anything does not
// learn of such a change, and should be stopped.
func (c *Converter) Reemit(
	ctx context.Context, hold func() (since time.Time, release func()), give func(ctx context.Context, md pmetric.Metrics) error,
) (n int, err error) {
	return c.pipeline.Reemit(ctx, c.reemit, holding(hold), byTenant(ctx, give))
}

// MarkStale emits a "no recorded value" point, at the current time, for each stream that Expire is about to forget, so that
// a backend ends the series there instead of showing its last value for minutes. Otherwise it works like Reemit, and it does
// nothing without Config.ReemitInterval. Streams that another worker has changed meanwhile are left out.
func (c *Converter) MarkStale(
	ctx context.Context, hold func() (since time.Time, release func()), give func(ctx context.Context, md pmetric.Metrics) error,
) (n int, err error) {
	return c.pipeline.MarkStale(ctx, holding(hold), byTenant(ctx, give))
}

func holding(hold func() (time.Time, func())) func() (time.Time, func()) {
	if hold != nil {
		return hold
	}
	return func() (time.Time, func()) { return time.Time{}, func() {} }
}

func byTenant(ctx context.Context, give func(context.Context, pmetric.Metrics) error) func([]streamid.TenantKey, pmetric.Metrics) error {
	return func(tenant []streamid.TenantKey, md pmetric.Metrics) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(tenant) == 0 {
			return give(ctx, md)
		}
		return give(WithTenant(ctx, tenant...), md)
	}
}
