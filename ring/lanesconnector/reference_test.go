// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"testing"

	"github.com/deltaring/deltaring/internal/keys/keystest"
)

func TestREADMEHasTheKeys(t *testing.T) {
	keystest.Reference{
		File:   "README.md",
		Config: createDefaultConfig,
		Prose:  []string{"routing_key", "routing_attributes", "retry_on_failure"},

		Elsewhere: "aggregate::N", // in that of the exporter ring
	}.Check(t)
}
