// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgresstate

import (
	"testing"

	"github.com/deltaring/deltaring/internal/keys/keystest"
)

func TestREADMEHasTheKeys(t *testing.T) {
	keystest.Reference{File: "README.md", Config: createDefaultConfig}.Check(t)
}
