// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package logstate is what extensions have in common that keep shared state as logs: a part of the configuration, the component's status,
// telemetry, and the store of each processor. What is left to an extension is to connect to its store, and to tell errors apart.
//
// An extension embeds an [*Extension]. Its Start makes a [Backend] and calls Run, its Shutdown calls Stop.
package logstate
