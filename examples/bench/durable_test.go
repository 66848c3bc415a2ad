// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

// What is measured must be stored, and found again by the processor that comes next.
func TestDurable(t *testing.T) {
	t.Parallel()
	for _, fsync := range []bool{false, true} {
		row, err := durable(3000, 2, fsync)
		if err != nil {
			t.Fatal(err)
		}
		if row.Streams != 3000 || row.FSync != fsync || row.RecordBytes != 3000*sumRecord {
			t.Errorf("%+v", row)
		}
		// Three deltas of each stream are in a journal that has not been cut.
		if row.StoredBytes < 3*row.RecordBytes || row.StoredBytes > 4*row.RecordBytes {
			t.Errorf("%d bytes stored, want somewhat more than 3 times %d", row.StoredBytes, row.RecordBytes)
		}
		positive(t, "figures", row.MemoryNS, row.MemoryCPUNS, row.DurableNS, row.DurableCPUNS, row.Restore.Seconds(), float64(row.FileBytes))
	}
}
