// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package told has what those are told whose data was not taken. A receiver sends the text of an error to whoever sent the data, and
// what is behind a Collector (addresses, names of hosts, what a store has said) is none of their business. Operators have the log.
package told

// Sender returns an error that is err but for its text: status, permanence and the data that it carries stay.
func Sender(err error, text string) error { return &toSender{text, err} }

type toSender struct {
	text string
	err  error
}

func (e *toSender) Error() string { return e.text }
func (e *toSender) Unwrap() error { return e.err }
