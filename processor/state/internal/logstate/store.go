// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package logstate

import (
	"context"
	"errors"

	"github.com/deltaring/deltaring/d2c/store"
	"github.com/deltaring/deltaring/d2c/store/log"
)

// newStore returns the store on a driver's logs.
func newStore(_ context.Context, _ log.Driver, _ *Config) (store.Shared, error) {
	return nil, errors.New("logstate: package log has no Store yet") // until branch log-engine has one
}
