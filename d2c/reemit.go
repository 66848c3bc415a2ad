// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"context"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/deltaring/deltaring/streamid"
)

// Reemit gives out again what has been quiet for Config.ReemitInterval: of each stream that nothing was counted of, and nothing
// given out, for so long, the latest sample, at the time of now. It calls give with batches of at most a thousand samples, one
// after the other, whose context has the tenant, and stops at an error of give, of the store or of ctx. It returns how many samples give has
// taken; what it has not comes again an interval later.
//
// A sample is given out when its time is stored, as those of Convert are; so what Convert gives out next of the stream is later.
// It is for the caller to keep the order: what Convert has given out of a stream must be where give brings samples to before they
// are, and the other way round. So Reemit calls hold before each batch, and release once give has returned: in between no call of Convert
// may be under way. Where what earlier ones have given out is still on its way, hold returns when the oldest of these calls
// began, and streams that were counted since are left out; else a time of zero. hold may be nil.
//
// Who a stream is, is known from its latest delta, and not stored: after a restart a stream waits for its next delta. With shared
// state each worker gives out what it has counted; of those that have counted a stream the first gives it out, the
// others learn so from the store and leave it to whoever counts it next. While the store fails no stream is given out again.
// A stream whose latest sample is a "no recorded value" point is not. With GapRestartIfMoved a stream that was not counted since
// the ring changed, as far as the batches of any gateway tell, waits for its next delta: it may have moved, and another worker gives it out. A worker to which gateways send nothing any more does
// not hear of that, and should end.
func (c *Converter) Reemit(
	ctx context.Context, hold func() (since time.Time, release func()), give func(ctx context.Context, md pmetric.Metrics) error,
) (n int, err error) {
	return c.pipeline.Reemit(ctx, c.reemit, holding(hold), byTenant(ctx, give))
}

// MarkStale gives out a "no recorded value" point of each stream that Expire is about to forget, at the time of now: what is not
// measured any more ends there, for a backend that would show its last value for minutes. It is like Reemit in all else, and of no effect
// without Config.ReemitInterval. Of a stream that another worker has changed meanwhile nothing is given out.
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
