// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"context"

	"github.com/deltaring/deltaring/streamid"
)

type tenantKey struct{}

// WithTenant returns a context that tells Convert whose batch it is, where tenants may send the same streams and are told apart
// by something else: a header of their requests, say. The keys are part of the identity of every stream in the batch, so
// no tenant's delta is ever added to another's total, whether state is in memory, durable or shared, and whichever batches are
// committed together. Keys without values count as absent, and without any key that has a value the batch is nobody's in
// particular, as it is without WithTenant. The keys are not kept beyond Convert, and must not change before it returns.
//
// State is told from other state by its owner and seed, not by the keys that somebody had in use: the identities see to that. Who
// goes on to tell tenants apart by a further key needs no new state. The streams of batches that have it begin anew, and all others
// go on; what is left of the old ones expires. Who goes back before it has, goes on with the old totals as after a gap.
//
// Convert gives out the same attributes for all tenants: what comes next must tell them apart as well.
func WithTenant(ctx context.Context, keys ...streamid.TenantKey) context.Context {
	return context.WithValue(ctx, tenantKey{}, keys)
}

// TenantOf returns whose a batch is that Reemit gives out, as WithTenant was told of its streams; nil if nobody's in particular.
func TenantOf(ctx context.Context) []streamid.TenantKey { return tenantOf(ctx) }

// tenantOf returns what WithTenant was given, or nil.
func tenantOf(ctx context.Context) []streamid.TenantKey {
	keys, _ := ctx.Value(tenantKey{}).([]streamid.TenantKey)
	return keys
}
