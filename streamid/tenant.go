// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package streamid

import "go.opentelemetry.io/collector/pdata/pcommon"

// TenantKey is something that tells tenants apart, for instance a header of their requests, and what it says of one. Several
// values count in their order. No value is as if the key were not there, which an empty value is not.
type TenantKey struct {
	Name   string
	Values []string
}

// Tenant is the identity of whoever has streams that may look like those of others. It comes from Seed.Tenant; the zero value
// is nobody in particular, under seed 0.
type Tenant struct {
	seed uint64
	sum  pairSum
}

// Tenant hashes what tells a tenant. The order of keys does not matter. Without any that has a value it is nobody in
// particular, and streams have the identities that they have without a tenant.
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

// Resource is Seed.Resource for the tenant's resources: none of their streams has the ID of anybody else's.
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
