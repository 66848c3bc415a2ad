// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3state

import (
	"testing"

	"github.com/deltaring/deltaring/internal/keys/keystest"
)

func TestREADMEHasTheKeys(t *testing.T) {
	keystest.Reference{File: "README.md", Config: createDefaultConfig, Prose: []string{"region", "endpoint"}}.Check(t)
}
