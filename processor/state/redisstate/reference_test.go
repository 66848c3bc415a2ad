// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"strconv"
	"testing"

	"github.com/deltaring/deltaring/internal/keys/keystest"
)

func TestREADMEHasTheKeys(t *testing.T) {
	keystest.Reference{File: "README.md", Config: createDefaultConfig, Defaults: map[string]string{"groups": strconv.Itoa(defaultGroups)}}.Check(t)
}
