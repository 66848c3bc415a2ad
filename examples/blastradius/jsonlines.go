// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"go.opentelemetry.io/collector/pdata/pmetric"
)

// readJSONLines adds what the Collector's file exporter wrote with its default format: a batch of metrics in each line.
// Lines of traces and logs count for nothing.
func readJSONLines(path string, p *population) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	// Lines have no limit: a line is a batch, and batches can be large.
	reader := bufio.NewReaderSize(file, 1<<20)
	var unmarshaler pmetric.JSONUnmarshaler
	for line := 1; ; line++ {
		data, err := reader.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%s, line %d: %w", path, line, err)
		}
		last := err != nil
		if data = bytes.TrimSpace(data); len(data) > 0 {
			md, err := unmarshaler.UnmarshalMetrics(data)
			if err != nil {
				return fmt.Errorf("%s, line %d: not OTLP metrics as JSON: %w", path, line, err)
			}
			p.add(md)
		}
		if last {
			break
		}
	}
	if p.Points == 0 {
		return fmt.Errorf("%s: no data points", path)
	}
	return nil
}
