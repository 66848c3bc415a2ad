// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid

import "go.opentelemetry.io/collector/pdata/pcommon"

// TenantKey is something that tells tenants apart, for instance a request header, with its values for one tenant. Several
// values count in their order. A key without values counts as absent, but an empty value does not.
type TenantKey struct {
	Name   string
	Values []string
}

// Tenant is the identity of a tenant whose streams may look like those of others. It is made by Seed.Tenant; the zero value
// is no particular tenant, under seed 0.
type Tenant struct {
	seed uint64
	sum  pairSum
}

// Tenant hashes the keys of a tenant. Their order does not matter. Without any key that has a value it is no particular
// tenant, and streams have the same identities as without a tenant.
func (s Seed) Tenant(keys ...TenantKey) Tenant {
	t := Tenant{seed: uint64(s)}
	for i := range keys {
		if len(keys[i].Values) > 0 {
			key := hashString(keys[i].Name, t.seed)
			t.sum.add(key, hashStrings(keys[i].Values, key.Lo))
		}
	}
	return t
}

// Resource is Seed.Resource for the tenant's resources: none of their streams has an ID of another tenant.
func (t Tenant) Resource(res pcommon.Resource) Resource {
	if t.sum.count == 0 {
		return Seed(t.seed).Resource(res)
	}
	var buf [48]byte
	sumPairs(res.Attributes(), t.seed).put(buf[:24])
	t.sum.put(buf[24:])
	return Resource{seed: t.seed, hash: hashBytes(buf[:], t.seed+tagTenant)}
}

// hashStrings is hashValue of a slice of strings.
func hashStrings(texts []string, seed uint64) ID {
	seed += tagSlice
	acc := ID{Lo: uint64(len(texts))}
	for _, s := range texts {
		acc = chain(acc, feedForward(hashString(s, seed+tagStr), seed+tagStr), seed)
	}
	var buf [16]byte
	acc.put(buf[:])
	return feedForward(hashBytes(buf[:], seed), seed)
}
