// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Package k8s finds members of a ring in the EndpointSlices of a Kubernetes Service. It is a module of its own, so that
// only who wants it builds the Kubernetes client.
//
// It lists the slices once and watches them from then on, as an informer does, with no request for a lookup. What the
// service account needs is to list and watch endpointslices in the namespace of the Service; it reads nothing else.
package k8s
