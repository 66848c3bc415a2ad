// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Blastradius tells what a change of the fleet moves, before it is made: how many streams and points change their owner,
// by routing key, beside the least that any balanced scheme must move, a plain consistent hash ring, and modulo.
//
//	go run . -from 2 -to 3                                  # scale out
//	go run . -from a,b,c -to a,b,d -key streamID,service    # replace a member
//	go run . -from 10 -ecs 100/200 -png roll.png            # a rolling update, as ECS does it
//	go run . -from 10 -to 11 -metrics metrics.json          # with real metrics instead of built-in ones
package main
