// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package d2c

import (
	"context"

	"github.com/deltaring/deltaring/streamid"
)

type tenantKey struct{}

// WithTenant returns a context that tells Convert which tenant a batch belongs to. Use it if tenants may send the same
// streams and something else tells them apart, such as a request header. The keys are part of the identity of every stream
// in the batch, so no tenant's delta is ever added to another's total, whether state is in memory, durable or shared, and
// whichever batches are committed together. Keys without values count as absent. A batch without any key that has a value
// belongs to no particular tenant, as without WithTenant. The keys are not kept after Convert returns, and must not change
// before.
//
// Stored state depends on the owner and the seed, not on which keys were in use, because the identities include the keys. To
// tell tenants apart by a further key, keep the state: the streams of batches with that key restart, all others continue,
// and the old streams expire. If the key is removed before they have expired, the old totals continue as after a gap.
//
// Convert gives out the same attributes for all tenants, so the next component must tell tenants apart as well.
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
