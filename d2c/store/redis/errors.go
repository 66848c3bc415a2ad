// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

var (
	errMoving = errors.New("a slot is being moved, and meanwhile its replicas cannot be asked (wait_replicas)")
	errAnswer = errors.New("the answer makes no sense: is this Redis?")
)

// Reason classifies why a call failed, for counting.
type Reason string

// The reasons.
const (
	// Unreachable means no answer, no connection, no primary, or none of them in time.
	Unreachable Reason = "unreachable"
	// Credentials means a wrong name or password, or a user that lacks a permission.
	Credentials Reason = "credentials"
	// Memory means a server at its maxmemory.
	Memory Reason = "memory"
	// Replicas means fewer replicas than required.
	Replicas Reason = "replicas"
	// Other is everything else.
	Other Reason = "other"
)

// Reasons lists all reasons.
var Reasons = []Reason{Unreachable, Credentials, Memory, Replicas, Other}

// ReasonOf returns why a call failed. Errors that come neither from a server nor from the connection to it are Other.
func ReasonOf(err error) Reason {
	switch {
	case !errors.As(err, new(callError)):
		return Other
	case credentials(err):
		return Credentials
	case says(err, "OOM"):
		return Memory
	case errors.As(err, new(replicasError)), errors.Is(err, errMoving), says(err, "NOREPLICAS"):
		return Replicas
	case errors.As(err, new(modeError)), errors.Is(err, errAnswer), errors.Is(err, errGone),
		errors.Is(err, errNoLog):
		return Other
	case !fromServer(err), serverElsewhere(err), goredis.IsMaxClientsError(err):
		return Unreachable
	}
	return Other
}

// says reports whether a server answered with the error code. Redis 6 wraps what goes wrong in a script, the code after a
// hyphen.
func says(err error, code string) bool {
	var answer goredis.Error
	if !errors.As(err, &answer) {
		return false
	}
	text := answer.Error()
	return text == code || strings.HasPrefix(text, code+" ") || strings.Contains(text, "-"+code+" ")
}

func saysAny(err error, codes ...string) bool {
	return slices.ContainsFunc(codes, func(code string) bool { return says(err, code) })
}

// fromServer reports whether a server has answered, though with an error.
func fromServer(err error) bool {
	var answer goredis.Error
	return errors.As(err, &answer)
}

// mayPass reports whether the same call may succeed before long.
func mayPass(err error) bool {
	switch {
	case errors.As(err, new(replicasError)), errors.As(err, new(modeError)), errors.Is(err, goredis.ErrClosed),
		errors.Is(err, context.Canceled), errors.Is(err, errAnswer), errors.Is(err, goredis.Nil):
		return false
	case !fromServer(err):
		return true // the connection, or no answer in time
	}
	return serverElsewhere(err) || saysAny(err, "TRYAGAIN", "NOREPLICAS", "BUSY") || goredis.IsMaxClientsError(err)
}

// serverElsewhere reports whether the server that answered is not, or not yet, the one to talk to.
func serverElsewhere(err error) bool {
	return saysAny(err, "LOADING", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "MOVED", "ASK")
}

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

// modeError says that the server is of another kind than the client is for.
type modeError struct {
	hint string
	err  error
}

func (e modeError) Error() string { return e.hint + ": " + e.err.Error() }
func (e modeError) Unwrap() error { return e.err }

// replicasError says that too few replicas have confirmed in time.
type replicasError struct {
	got, want int
	within    time.Duration
}

func (e replicasError) Error() string {
	return fmt.Sprintf("%d of %d replicas confirmed within %v (wait_replicas, wait_timeout)", e.got, e.want, e.within)
}

// explain adds where it happened, and to an error that a server does not explain what it means. No error of the client has a
// password.
func (s *server) explain(doing string, err error) error {
	hint := ""
	switch {
	case errors.As(err, new(modeError)):
	case forbidden(err):
		hint = "the user lacks a permission: "
	case credentials(err):
		hint = "the server does not accept username and password: "
	case says(err, "OOM"):
		hint = "the server is out of memory: "
	case says(err, "READONLY"):
		hint = "the server is a replica: name the primary, or set mode: sentinel: "
	case says(err, "MASTERDOWN"):
		hint = "the server is a replica without its primary: "
	case says(err, "LOADING"):
		hint = "the server is still loading its data: "
	case says(err, "BUSY"):
		hint = "the server is busy with a script: "
	case says(err, "CLUSTERDOWN"):
		hint = "the Cluster is not whole: "
	case says(err, "TRYAGAIN"):
		hint = "a slot is being moved: "
	case says(err, "WRONGTYPE"):
		hint = "a key that is ours holds something else: delete it: "
	case says(err, "MISCONF"):
		hint = "the server cannot save to disk and takes no writes: "
	}
	return callError{fmt.Sprintf("redis at %s: %s: %s", s.name, doing, hint), err}
}

// callError is the error of a method.
type callError struct {
	where string
	err   error
}

func (e callError) Error() string { return e.where + e.err.Error() }
func (e callError) Unwrap() error { return e.err }
