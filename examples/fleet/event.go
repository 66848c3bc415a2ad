// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"syscall"
	"time"
)

// event is something that happens to a fleet under load.
type event struct {
	name     string // as the flag -event has it
	title    string
	gateways int
	workers  int
	store    bool // happens to the store, which contrib's fleet does not have
	run      func(ctx context.Context, f *fleet) error
}

var events = []event{
	{name: "scale-out", title: "scale out, 2 to 4 workers", gateways: 2, workers: 2, run: func(ctx context.Context, f *fleet) error {
		if err := f.startWorkers(ctx, workerName(2), workerName(3)); err != nil {
			return err
		}
		return f.publish(ctx, workerNames(4)...)
	}},
	{name: "scale-in", title: "scale in, 4 to 2 workers", gateways: 2, workers: 4, run: func(ctx context.Context, f *fleet) error {
		if err := f.publish(ctx, workerNames(2)...); err != nil {
			return err
		}
		// At once, while gateways may still send to them.
		return f.stopWorkers(workerName(2), workerName(3))
	}},
	{name: "roll-workers", title: "roll all workers", gateways: 2, workers: 3, run: func(ctx context.Context, f *fleet) error {
		// Their names stay on the list, as in Kubernetes with publishNotReadyAddresses.
		return roll(ctx, f.workers[workerName(0)], f.workers[workerName(1)], f.workers[workerName(2)])
	}},
	{name: "roll-gateways", title: "roll all gateways", gateways: 2, workers: 3, run: func(ctx context.Context, f *fleet) error {
		return roll(ctx, f.gateways...)
	}},
	{name: "kill", title: "kill -9 a worker for good", gateways: 2, workers: 3, run: func(ctx context.Context, f *fleet) error {
		f.workers[workerName(1)].kill()
		if err := pause(ctx, detection); err != nil {
			return err
		}
		return f.withdraw(ctx, workerName(1))
	}},
	{name: "kill-restart", title: "kill -9 a worker, start it again", gateways: 2, workers: 3, run: func(ctx context.Context, f *fleet) error {
		f.workers[workerName(1)].kill()
		return f.workers[workerName(1)].launch(ctx)
	}},
	{name: "pause", title: "pause a worker longer than clients wait", gateways: 2, workers: 3, run: func(ctx context.Context, f *fleet) error {
		w := f.workers[workerName(1)]
		if err := w.signal(syscall.SIGSTOP); err != nil {
			return err
		}
		// Clients have tried again before others get its streams, and it comes back with requests that all have given up.
		if err := pause(ctx, requestTimeout+time.Second); err != nil {
			return err
		}
		if err := f.withdraw(ctx, w.name); err != nil {
			return err
		}
		if err := pause(ctx, 3*time.Second); err != nil {
			return err
		}
		if err := w.signal(syscall.SIGCONT); err != nil {
			return err
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
		return f.publish(ctx, workerNames(3)...)
	}},
	{name: "hang", title: "a worker hangs for 20 s and stays on the list", gateways: 2, workers: 3, run: func(ctx context.Context, f *fleet) error {
		if err := f.workers[workerName(1)].signal(syscall.SIGSTOP); err != nil {
			return err
		}
		if err := pause(ctx, 20*time.Second); err != nil {
			return err
		}
		return f.workers[workerName(1)].signal(syscall.SIGCONT)
	}},
	{name: "store-restart", title: "restart the store with its data", gateways: 2, workers: 3, store: true, run: func(ctx context.Context, f *fleet) error {
		if err := f.store.stop(); err != nil {
			return err
		}
		return f.store.launch(ctx)
	}},
	{name: "store-wipe", title: "wipe the store", gateways: 2, workers: 3, store: true, run: func(ctx context.Context, f *fleet) error {
		return f.store.wipe(ctx)
	}},
	{name: "store-cut", title: "cut the store off for 10 s", gateways: 2, workers: 3, store: true, run: func(ctx context.Context, f *fleet) error {
		// It takes what comes in and answers nothing, as when packets are lost on the way back.
		if err := f.store.signal(syscall.SIGSTOP); err != nil {
			return err
		}
		if err := pause(ctx, 10*time.Second); err != nil {
			return err
		}
		return f.store.signal(syscall.SIGCONT)
	}},
	{name: "no-gateways", title: "no gateways; 2 to 4 workers, kill -9 one", workers: 2, run: func(ctx context.Context, f *fleet) error {
		if err := f.startWorkers(ctx, workerName(2), workerName(3)); err != nil {
			return err
		}
		if err := f.publish(ctx, workerNames(4)...); err != nil {
			return err
		}
		if err := pause(ctx, 3*time.Second); err != nil {
			return err
		}
		f.workers[workerName(1)].kill()
		if err := pause(ctx, detection); err != nil {
			return err
		}
		return f.withdraw(ctx, workerName(1))
	}},
}
