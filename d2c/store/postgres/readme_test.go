// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"os"
	"strings"
	"testing"
)

// TestREADMEHasTheGrants holds what the extension's README says that a user needs against what SQL says.
func TestREADMEHasTheGrants(t *testing.T) {
	readme, err := os.ReadFile("../../../processor/state/postgresstate/README.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := grants("d2c", "d2c"); !strings.Contains(string(readme), "```sql\n"+want+"```\n") {
		t.Errorf("the README does not have\n%s", want)
	}
}
