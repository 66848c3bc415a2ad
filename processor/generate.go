// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

//go:build ignore

// Generate runs mdatagen, at the version mdatagen.mod pins, and corrects the package clause of the tests it leaves beside
// metadata.yaml: mdatagen takes a package to be called what its directory is called, and this one is not.
package main

import (
	"bytes"
	"errors"
	"io/fs"
	"log"
	"os"
	"os/exec"
)

func main() {
	// Before as well as after: mdatagen asks the go command for the import path, which a wrong clause left behind by a
	// run outside of this program would prevent.
	correctClauses()
	mdatagen := exec.Command("go", "tool", "-modfile=mdatagen.mod", "mdatagen", "metadata.yaml")
	mdatagen.Stdout, mdatagen.Stderr = os.Stdout, os.Stderr
	if err := mdatagen.Run(); err != nil {
		log.Fatalf("mdatagen: %v", err)
	}
	correctClauses()
}

func correctClauses() {
	for _, name := range []string{"generated_component_test.go", "generated_package_test.go"} {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			text = bytes.Replace(text, []byte("\npackage processor\n"), []byte("\npackage d2cprocessor\n"), 1)
			err = os.WriteFile(name, text, 0o644)
		}
		if err != nil {
			log.Fatal(err)
		}
	}
}
