// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package lanesconnector

import (
	"go.opentelemetry.io/collector/confmap"

	"github.com/deltaring/deltaring/internal/keys"
)

var _ confmap.Unmarshaler = (*Config)(nil)

// meant are keys under which others look for what is here.
var meant = map[string]string{
	"num_lanes":     "did you mean lanes?",
	"num_consumers": "each lane has one: did you mean lanes?",
	"parallelism":   "did you mean lanes?",
	"batch":         "did you mean max_request_items, or sending_queue::batch?",
	"storage":       "did you mean sending_queue::storage?",
	"queue_size":    "did you mean max_waiting_items, or sending_queue::queue_size?",
	"guard":         "did you mean late?",
}

// Unmarshal refuses unknown keys, and says which one was meant.
func (c *Config) Unmarshal(conf *confmap.Conf) error {
	return keys.Unmarshal(conf, c, meant)
}
