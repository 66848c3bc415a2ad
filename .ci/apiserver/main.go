// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

// Command apiserver is a Kubernetes API server for tests: the real kube-apiserver with an etcd of its own, and the
// controller that makes EndpointSlices of Services and Pods. There is nothing else: no kubelet runs a Pod, so tests set
// the status of theirs.
//
//	apiserver -data DIR [-- flags of kube-apiserver]
//
// It serves at 127.0.0.1, keeps its data in DIR, and ends when its standard input does, so that it never outlives the
// test that started it.
package main

import (
	"context"
	"flag"
	"io"
	"log"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/pkg/controller/endpointslice"
)

func main() {
	data := flag.String("data", "", "directory for everything that is kept")
	host := flag.String("host", "", "where the flags have kube-apiserver listen, as https://127.0.0.1:port")
	token := flag.String("token", "", "of an administrator, for the controller")
	flag.Parse()
	if *data == "" || *host == "" || *token == "" {
		log.Fatal("-data, -host and -token must be set")
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0) // kills nothing that is not on disk
	}()
	etcd, err := startEtcd(filepath.Join(*data, "etcd"))
	if err != nil {
		log.Fatal("etcd: ", err)
	}
	go control(*host, *token)
	server := app.NewAPIServerCommand()
	server.SetArgs(append([]string{"--etcd-servers=" + etcd}, flag.Args()...))
	os.Exit(cli.Run(server))
}

// startEtcd returns where clients find it.
func startEtcd(dir string) (string, error) {
	any, _ := url.Parse("http://127.0.0.1:0")
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel = dir, "error"
	cfg.ListenClientUrls, cfg.ListenPeerUrls = []url.URL{*any}, []url.URL{*any}
	cfg.UnsafeNoFsync = true      // a power cut costs a test
	cfg.EnableGRPCGateway = false // it would look for the port that was asked for
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return "", err
	}
	<-e.Server.ReadyNotify()
	return "http://" + e.Clients[0].Addr().String(), nil
}

// control makes EndpointSlices, as soon as there is an API server. Informers try until they are answered.
func control(host, token string) {
	client := kubernetes.NewForConfigOrDie(&rest.Config{
		Host: host, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: 1000, Burst: 1000,
	})
	ctx := context.Background()
	shared := informers.NewSharedInformerFactory(client, 0)
	core := shared.Core().V1()
	c := endpointslice.NewController(ctx, core.Pods(), core.Services(), core.Nodes(), shared.Discovery().V1().EndpointSlices(),
		100, client, 10*time.Millisecond)
	shared.Start(ctx.Done())
	c.Run(ctx, 2)
}
