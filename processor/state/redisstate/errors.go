// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redisstate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

var (
	errClosed     = errors.New("redis_state: the extension has been shut down")
	errNotStarted = errors.New("redis_state: the extension has not been started")
	errMoving     = errors.New("a slot is being moved, and meanwhile its replicas cannot be asked (wait_replicas)")
)

// says reports whether a server answered with the error code. Redis 6 wraps what goes wrong in a script, the code after a
// hyphen.
func says(err error, code string) bool {
	var answer redis.Error
	if !errors.As(err, &answer) {
		return false
	}
	text := answer.Error()
	return strings.HasPrefix(text, code+" ") || strings.Contains(text, "-"+code+" ")
}

func saysAny(err error, codes ...string) bool {
	return slices.ContainsFunc(codes, func(code string) bool { return says(err, code) })
}

// fromServer reports whether a server has answered, though with an error.
func fromServer(err error) bool {
	var answer redis.Error
	return errors.As(err, &answer)
}

// mayPass reports whether the same call may succeed before long.
func mayPass(err error) bool {
	switch {
	case errors.As(err, new(errReplicas)), errors.Is(err, redis.ErrClosed), errors.Is(err, context.Canceled):
		return false
	case !fromServer(err):
		return true // the connection, or no answer in time
	}
	return serverElsewhere(err) || saysAny(err, "TRYAGAIN", "NOREPLICAS", "BUSY") || redis.IsMaxClientsError(err)
}

// serverElsewhere reports whether the server that answered is not, or not yet, the one to talk to.
func serverElsewhere(err error) bool {
	return saysAny(err, "LOADING", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "MOVED", "ASK")
}

// reason is what an error is counted under.
func reason(err error) string {
	switch {
	case credentials(err):
		return "credentials"
	case says(err, "OOM"):
		return "memory"
	case errors.As(err, new(errReplicas)), errors.Is(err, errMoving), says(err, "NOREPLICAS"):
		return "replicas"
	case !fromServer(err), serverElsewhere(err), redis.IsMaxClientsError(err):
		return "unreachable"
	}
	return "other"
}

// reasons are all that reason returns.
var reasons = []string{"credentials", "memory", "replicas", "unreachable", "other"}

// credentials reports whether the server does not let us in, or not do what we must. To a large command of somebody it does
// not know it says that, instead of NOAUTH.
func credentials(err error) bool {
	return saysAny(err, "WRONGPASS", "NOAUTH") || forbidden(err) || fromServer(err) &&
		(strings.Contains(err.Error(), "invalid password") || strings.Contains(err.Error(), "Protocol error: unauthenticated"))
}

// forbidden reports whether we are in, but lack a permission. For what a script runs, Redis 7 and 6 have no code.
func forbidden(err error) bool {
	return says(err, "NOPERM") || fromServer(err) && (strings.Contains(err.Error(), "ACL failure in script") ||
		strings.Contains(err.Error(), "user executing the script can't"))
}

// explain adds where it happened, and to an error that a server does not explain what it means. No error of the client has a
// password.
func (s *server) explain(doing string, err error) error {
	hint := ""
	switch {
	case forbidden(err):
		hint = "the user lacks a permission: "
	case credentials(err):
		hint = "the server does not accept username and password: "
	case says(err, "OOM"):
		hint = "the server is out of memory: "
	}
	return fmt.Errorf("redis at %s: %s: %s%w", s.name, doing, hint, err)
}
