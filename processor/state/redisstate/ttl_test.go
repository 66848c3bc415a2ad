// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"testing"
	"time"

	"go.opentelemetry.io/collector/extension/extensiontest"

	"github.com/deltaring/deltaring/processor/state/redisstate/internal/metadata"
)

// A processor asks for how long records are kept by this method, see d2cprocessor.SharedState: what has another name or form is not
// asked.
func TestRecordTTLIsTold(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	cfg.Endpoint, cfg.RecordTTL = "localhost:1", time.Hour
	ext, err := NewFactory().Create(t.Context(), extensiontest.NewNopSettings(metadata.Type), cfg)
	if err != nil {
		t.Fatal(err)
	}
	told, ok := ext.(interface{ RecordTTL() time.Duration })
	if !ok || told.RecordTTL() != time.Hour {
		t.Errorf("got %v %v, want one hour", told, ok)
	}
}
