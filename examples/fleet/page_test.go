// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"image/png"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
)

func TestThePageIsForThisMachineOnly(t *testing.T) {
	for address, want := range map[string]string{
		"0.0.0.0:0":   "not a loopback address",
		":8080":       "not a loopback address",
		"192.0.2.1:0": "not a loopback address",
		"127.0.0.1":   "missing port",
		"[::]:0":      "not a loopback address",
	} {
		p, err := newPage(address)
		if err == nil {
			p.stop()
			t.Errorf("%s: the page is served", address)
			continue
		}
		if !strings.Contains(err.Error(), "-http") || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "127.0.0.1:8080") {
			t.Errorf("%s: %v", address, err)
		}
	}
	p, err := newPage("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	if second, err := newPage(strings.Trim(strings.TrimPrefix(p.url, "http://"), "/")); err == nil || !strings.Contains(err.Error(), "any free port") {
		if err == nil {
			second.stop()
		}
		t.Errorf("an address that is in use: %v", err)
	}
}

// What is published last reaches every browser, even as the command ends.
func TestThePageSendsWhatIsPublishedLast(t *testing.T) {
	p, err := newPage("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	p.publish(state{Phase: "before"})
	resp, err := http.Get(p.url + "events")
	if err != nil {
		p.stop()
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	data := func() string {
		for lines.Scan() {
			if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				return text
			}
		}
		return ""
	}
	if got := data(); !strings.Contains(got, `"phase":"before"`) {
		t.Errorf("first: %s", got)
	}
	p.publish(state{Phase: "failed", Text: "why"})
	p.stop()
	last := data()
	for more := data(); more != ""; more = data() {
		last = more
	}
	if !strings.Contains(last, `"text":"why"`) {
		t.Errorf("last: %s", last)
	}
}

// A build takes minutes, in which somebody may change their mind.
func TestTheDemoCanBeInterruptedWhileItCompiles(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	said, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- runDemo(ctx, out, options{demo: true, short: true, http: "127.0.0.1:0"}, "")
		_ = out.Close()
	}()
	for lines := bufio.NewScanner(said); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "build: ") {
			cancel()
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWhatCannotBeShown(t *testing.T) {
	for _, event := range []string{"no-gateways", "store-wipe", "kill,pause", "nothing"} {
		if err := runDemo(t.Context(), io.Discard, options{demo: true, http: "127.0.0.1:0"}, event); err == nil || !strings.Contains(err.Error(), "-event: ") {
			t.Errorf("%s: %v", event, err)
		}
	}
}

// README.md shows what the page looks like; the browser test takes the picture.
func TestTheScreenshotIsSmall(t *testing.T) {
	image, err := os.ReadFile(screenshotFile)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := png.DecodeConfig(bytes.NewReader(image)); err != nil || c.Width != 1280 || len(image) >= screenshotMost {
		t.Errorf("%d wide, %d bytes, %v", c.Width, len(image), err)
	}
}
