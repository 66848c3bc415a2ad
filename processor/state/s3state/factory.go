// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package s3state

import (
	"context"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"

	"github.com/deltaring/deltaring/processor/state/s3state/internal/metadata"
)

// NewFactory returns the factory of extension "s3_state"; its configuration is a *Config. The extension has a method
// SharedStore(ctx context.Context, processor component.ID) (store.Shared, error), which is what the processor d2c looks for.
func NewFactory() extension.Factory {
	return extension.NewFactory(metadata.Type, createDefaultConfig, create, metadata.ExtensionStability)
}

func create(_ context.Context, set extension.Settings, cfg component.Config) (extension.Extension, error) {
	return newExtension(set, cfg.(*Config))
}
