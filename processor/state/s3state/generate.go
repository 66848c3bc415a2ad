// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build ignore

// Generate runs mdatagen at the version that mdatagen.mod pins.
package main

import (
	"log"
	"os"
	"os/exec"
)

func main() {
	mdatagen := exec.Command("go", "tool", "-modfile=mdatagen.mod", "mdatagen", "metadata.yaml")
	mdatagen.Stdout, mdatagen.Stderr = os.Stdout, os.Stderr
	if err := mdatagen.Run(); err != nil {
		log.Fatalf("mdatagen: %v", err)
	}
}
