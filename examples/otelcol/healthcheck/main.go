// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Command healthcheck asks the health_check extension of a Collector in the same container, and fails unless it answers 200. It is for
// images without a shell, where Docker and ECS have nothing else to run.
package main

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"time"
)

func main() {
	if err := check(cmp.Or(os.Getenv("HEALTH_ENDPOINT"), "localhost:13133")); err != nil {
		fmt.Fprintln(os.Stderr, "healthcheck:", err)
		os.Exit(1)
	}
}

// check asks an endpoint. That of all interfaces, 0.0.0.0, is one to ask as well.
func check(endpoint string) error {
	client := http.Client{Timeout: 3 * time.Second}
	response, err := client.Get("http://" + endpoint + "/")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", endpoint, response.Status)
	}
	return nil
}
