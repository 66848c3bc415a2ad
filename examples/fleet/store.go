// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// store is where workers share their state. It finds its data again when it is stopped and started.
type store interface {
	environment() []string // what the configurations of its kind need
	launch(ctx context.Context) error
	stop() error
	signal(s syscall.Signal) error // to all of its processes
	wipe(ctx context.Context) error
	kill()
}

// storeKind is one of the stores that there are.
type storeKind struct {
	name, title     string   // as the flag -store has it, and as the table does, empty for the one that is not worth a word
	worker, gateway []string // configuration files, merged over those of a fleet without one
	cluster         bool     // can have several servers
	start           func(ctx context.Context, dir string, servers int) (store, error)
}

// gateway-groups.yaml tells gateways which streams are in one log of the store, as $STATE_GROUPS does the workers.
var groupsFile = []string{"gateway-groups.yaml"}

var (
	onRedis    = storeKind{name: "redis", worker: []string{"redis.yaml"}, cluster: true, start: startRedisStore}
	onRedisLog = storeKind{name: "redis-log", title: "Redis by log", worker: []string{"redis.yaml", "redis-log.yaml"}, gateway: groupsFile,
		cluster: true, start: startRedisStore}
	onS3       = storeKind{name: "s3", title: "S3", worker: []string{"s3.yaml"}, gateway: groupsFile, start: startS3}
	onPostgres = storeKind{name: "postgres", title: "PostgreSQL", worker: []string{"postgres.yaml"}, gateway: groupsFile, start: startPostgres}

	storeKinds = []storeKind{onRedis, onRedisLog, onS3, onPostgres}
)

func storeNames() []string {
	var names []string
	for _, k := range storeKinds {
		names = append(names, k.name)
	}
	return names
}

// chooseStores returns those with these names, comma-separated.
func chooseStores(names string) ([]storeKind, error) {
	var chosen []storeKind
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(storeKinds, func(k storeKind) bool { return k.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-store: unknown %q; there are %s", name, strings.Join(storeNames(), ", "))
		}
		chosen = append(chosen, storeKinds[i])
	}
	return chosen, nil
}

// on returns the side with its workers' state in a store.
func (s side) on(k storeKind) side {
	s.store, s.servers = &k, 1
	s.worker = slices.Concat(s.worker, k.worker)
	s.gateway = slices.Concat(s.gateway, k.gateway)
	if k.title != "" {
		s.name += ", " + k.title
	}
	return s
}

// tool finds what "make tools" builds, by the variable that names it in the Makefile.
func tool(variable string) (string, error) {
	makefile, err := os.ReadFile(filepath.Join(repository, "Makefile"))
	if err != nil {
		return "", err
	}
	named := regexp.MustCompile(`(?m)^` + variable + `\s*:=\s*(\S+)$`).FindSubmatch(makefile)
	if named == nil {
		return "", fmt.Errorf("the Makefile has no %s", variable)
	}
	path, err := filepath.Abs(filepath.Join(repository, string(named[1])))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("run \"make tools\" at the top of the repository; it takes minutes, once: %w", err)
	} else if err != nil {
		return "", err
	}
	return path, nil
}
