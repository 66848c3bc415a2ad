// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/deltaring/deltaring/streamid"
)

// defaultKeys are those that people route metrics by.
const defaultKeys = "streamID,metric,service,resource,aws.ecs.task.id"

// routingKey is a routing key and what the user calls it.
type routingKey struct {
	Name string
	Key  streamid.Key
}

// parseKeys reads a list of routing keys for metrics. A name with a dot is an attribute, several joined by + are all of
// them together; any other is the name of a key, so that a misspelt one is an error and not an attribute that nobody has.
func parseKeys(list string) ([]routingKey, error) {
	var keys []routingKey
	for word := range strings.SplitSeq(list, ",") {
		name, attributes := word, []string(nil)
		if strings.Contains(word, ".") {
			name, attributes = "attributes", strings.Split(word, "+")
		}
		key, err := streamid.ParseKey(name, attributes)
		if err == nil && word == "" {
			err = fmt.Errorf("a routing key is empty")
		}
		if err == nil {
			err = key.Check(streamid.SignalMetrics)
		}
		if err != nil {
			return nil, fmt.Errorf("%w (an attribute needs a dot in its name, such as aws.ecs.task.id)", err)
		}
		for _, k := range keys {
			if k.Name == word {
				return nil, fmt.Errorf("routing key %q is listed twice", word)
			}
		}
		keys = append(keys, routingKey{Name: word, Key: key})
	}
	return keys, nil
}
