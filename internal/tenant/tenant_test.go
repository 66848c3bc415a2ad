// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package tenant

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/client"

	"github.com/deltaring/deltaring/streamid"
)

func TestParseKeys(t *testing.T) {
	keys, err := ParseKeys([]string{"X-Tenant", "x-team"})
	require.NoError(t, err)
	assert.Equal(t, Keys{"x-tenant", "x-team"}, keys)
	keys, err = ParseKeys(nil)
	require.NoError(t, err)
	assert.Empty(t, keys)
	for want, names := range map[string][]string{
		"1: must not be empty":                                 {"a", ""},
		`1: "X-TENANT" is listed twice (case does not matter)`: {"x-tenant", "X-TENANT"},
		`0: "X-Deltaring-Epoch": what begins with x-deltaring- is about the way that a batch came`: {"X-Deltaring-Epoch"},
	} {
		_, err := ParseKeys(names)
		assert.EqualError(t, err, want)
	}
}

func with(md map[string][]string) context.Context {
	return client.NewContext(context.Background(), client.Info{Metadata: client.NewMetadata(md)})
}

func TestOf(t *testing.T) {
	keys := Keys{"x-tenant", "x-team"}
	for _, test := range []struct {
		metadata map[string][]string
		want     []streamid.TenantKey
	}{
		{nil, nil},
		{map[string][]string{"x-other": {"a"}, "x-team": {}}, nil},
		{map[string][]string{"x-tenant": {""}}, []streamid.TenantKey{{Name: "x-tenant", Values: []string{""}}}},
		{map[string][]string{"X-Team": {"b", "a"}, "X-TENANT": {"acme"}}, []streamid.TenantKey{
			{Name: "x-tenant", Values: []string{"acme"}}, {Name: "x-team", Values: []string{"b", "a"}},
		}},
	} {
		assert.Equal(t, test.want, keys.Of(with(test.metadata)))
	}
	assert.Nil(t, keys.Of(context.Background()))
	assert.Nil(t, Keys(nil).Of(with(map[string][]string{"x-tenant": {"acme"}})))
}

// A batch without a tenant costs nothing.
func TestNobodyAllocatesNothing(t *testing.T) {
	ctx, other := with(nil), with(map[string][]string{"x-other": {"a"}})
	for _, keys := range []Keys{nil, {"x-tenant", "x-team"}} {
		assert.Zero(t, testing.AllocsPerRun(10, func() {
			keys.Of(ctx)
			keys.Of(other)
		}))
	}
}
