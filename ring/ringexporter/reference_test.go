// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package ringexporter

import (
	"testing"

	"github.com/deltaring/deltaring/internal/keys/keystest"
)

func TestREADMEHasTheKeys(t *testing.T) {
	keystest.Reference{
		File:     "README.md",
		Config:   createDefaultConfig,
		Defaults: map[string]string{"resolver::static::members::N::weight": "1"},
	}.Check(t)
}
