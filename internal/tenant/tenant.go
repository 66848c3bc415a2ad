// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package tenant has what the processor d2c and the exporter ring must do alike, so that a stream has one owner and one total:
// make a tenant of the metadata that came with a request. It also names the metadata of our own.
package tenant

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.opentelemetry.io/collector/client"

	"github.com/deltaring/deltaring/streamid"
)

// ReservedPrefix is what the names of our own metadata begin with. It says which way a batch came, not whose it is.
const ReservedPrefix = "x-deltaring-"

// The metadata in which the exporter ring says how it has routed a request, and in which the processor d2c reads it.
const (
	EpochKey    = ReservedPrefix + "epoch"
	SinceKey    = ReservedPrefix + "since"
	PreviousKey = ReservedPrefix + "previous"
	MemberKey   = ReservedPrefix + "member"
)

// Keys are the names of client metadata that tell tenants apart, in lower case.
type Keys []string

// ParseKeys returns the keys of a configuration, or an error that says which entry cannot be, as "0: ...". Names in another case
// are the same.
func ParseKeys(names []string) (Keys, error) {
	var keys Keys
	for i, name := range names {
		key := strings.ToLower(name)
		switch {
		case key == "":
			return nil, fmt.Errorf("%d: must not be empty", i)
		case strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }):
			return nil, fmt.Errorf("%d: %q: no header has such a name", i, name)
		case strings.HasPrefix(key, ReservedPrefix):
			return nil, fmt.Errorf("%d: %q: what begins with %s is about the way that a batch came", i, name, ReservedPrefix)
		case slices.Contains(keys, key):
			return nil, fmt.Errorf("%d: %q is listed twice (case does not matter)", i, name)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// Of returns what the request's metadata says of the tenant: of each key that it has, the values in their order.
func (k Keys) Of(ctx context.Context) []streamid.TenantKey {
	if len(k) == 0 {
		return nil
	}
	md := client.FromContext(ctx).Metadata
	var tenant []streamid.TenantKey
	for _, name := range k {
		if values := md.Get(name); len(values) > 0 {
			if tenant == nil {
				tenant = make([]streamid.TenantKey, 0, len(k))
			}
			tenant = append(tenant, streamid.TenantKey{Name: name, Values: values})
		}
	}
	return tenant
}
