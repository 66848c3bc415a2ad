// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// screenshotVariable names a directory for screenshots, of a run that is as long as that of "make demo": the one that README.md shows,
// one in the dark and one of a phone. Without it the run is short, and the test looks at a screenshot and forgets it.
const (
	screenshotVariable = "DEMO_SCREENSHOTS"
	screenshotFile     = "demo.png"
	screenshotMost     = 200_000 // bytes
)

// browser is a Chromium without a window.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	messages []string // of the console and the log that are errors
}

func startBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("the browser (Debian: apt-get install chromium): %v", err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // it refuses to run as root otherwise
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx}
	messages := chromedp.Console(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for m, err := range messages {
			if err != nil {
				return
			}
			if m.IsException() || strings.Contains(string(m.Type), "error") {
				b.mu.Lock()
				b.messages = append(b.messages, m.String())
				b.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	b.do(chromedp.EmulateViewport(1280, 800), chromedp.Navigate("about:blank"))
	return b
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// evaluate returns what an expression is on the page.
func evaluate[T any](b *browser, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits until an expression is true on the page.
func (b *browser) until(expression string) {
	b.t.Helper()
	err := poll(b.t.Context(), func() error {
		yes, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](expression))
		if err == nil && !yes {
			err = errors.New("not so on the page")
		}
		return err
	})
	if err != nil {
		b.t.Fatalf("%s: %v; errors: %q\n%s", expression, err, b.errors(), evaluate[string](b, "document.body.innerText"))
	}
}

// errors are those of the console so far.
func (b *browser) errors() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.messages
}

// colors has the page in the light or the dark.
func (b *browser) colors(scheme string) {
	b.t.Helper()
	b.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return err
	}))
}

// On the page: the text of a fact of a side, the number at the end of a line, and the workers that get points.
const helpers = `
	told = (side, name) => document.querySelector('[data-side="' + side + '"] [data-fact="' + name + '"]').textContent;
	ends = name => Number(document.querySelector('[data-line="' + name + '"] b').textContent.replaceAll(',', ''));
	busy = side => [...document.querySelectorAll('[data-side="' + side + '"] [data-worker]')].map(e => Number(e.dataset.share)).filter(s => s > 0);
	contrast = (a, b) => {
		const light = name => {
			const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim().slice(1).replace(/^(.)(.)(.)$/, '$1$1$2$2$3$3');
			const [r, g, b] = [0, 2, 4].map(i => parseInt(hex.slice(i, i + 2), 16) / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
			return 0.2126 * r + 0.7152 * g + 0.0722 * b;
		};
		const [dark, bright] = [light(a), light(b)].sort((x, y) => x - y);
		return (bright + 0.05) / (dark + 0.05);
	};
	true`

// The page shows a scale-out of both fleets while it happens, in a real browser, and ends with the command.
func TestTheDemoInABrowser(t *testing.T) {
	b := startBrowser(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	said, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := runDemo(ctx, out, options{demo: true, short: os.Getenv(screenshotVariable) == "", http: "127.0.0.1:0"}, "")
		ended <- err
		_ = out.CloseWithError(fmt.Errorf("the command has ended: %v", err))
	}()
	lines := bufio.NewReader(said)
	first, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	url := strings.Fields(first)[1]

	b.do(chromedp.Navigate(url))
	b.until(`document.querySelector("#doing").textContent.startsWith("Compiling the Collector of deltaring")`)
	evaluate[bool](b, helpers)
	for tick := time.Tick(time.Second); evaluate[string](b, "document.body.dataset.phase") == "build"; <-tick {
		// A compiler with an empty cache takes minutes, more than poll is patient for.
	}
	for _, phase := range []string{"start", "before"} { // poll is patient for each of them
		b.until(fmt.Sprintf(`phases.findIndex(p => p[0] === document.body.dataset.phase) >= phases.findIndex(p => p[0] === %q)`, phase))
	}
	for _, side := range demoSides {
		b.until(fmt.Sprintf(`busy(%q).length === 2 && Math.abs(busy(%[1]q).reduce((x, y) => x + y) - 1) < 0.001`, side.side.name))
		b.until(fmt.Sprintf(`ends(%q) > 0`, side.side.name))
	}
	before := evaluate[int](b, `ends("deltaring")`)
	for _, side := range demoSides {
		b.until(fmt.Sprintf(`busy(%q).length === 4`, side.side.name))
	}
	b.until(`document.body.dataset.phase === "done"`)
	b.until(`document.querySelectorAll("[data-verdict]").length === 2`)
	if after := evaluate[int](b, `ends("deltaring")`); after <= before || after != evaluate[int](b, `ends("sent and acknowledged")`) {
		t.Errorf("the counter was %d before and is %d, of %d that were sent", before, after, evaluate[int](b, `ends("sent and acknowledged")`))
	}
	for expression, want := range map[string]bool{
		`state.sides[0].samples.every((p, i, all) => i === 0 || p[1] >= all[i - 1][1])`:                                         true,
		`state.sides[1].samples.every((p, i, all) => i === 0 || p[1] >= all[i - 1][1])`:                                         false, // the page shows one that fell
		`state.sides.every(s => s.trouble === "")`:                                                                              true,
		`state.sides[0].ours.swapped > 0`:                                                                                       true,
		`document.querySelector('[data-verdict="deltaring"]').className.includes("good")`:                                       true,
		`document.querySelector('[data-verdict="contrib"]').className.includes("bad")`:                                          true,
		`Math.abs(parseFloat(told("deltaring", "moved")) - 50) < 10`:                                                            true,
		`state.sides[0].fallen === 0 && told("deltaring", "fallen").startsWith("0of ")`:                                         true,
		`state.sides[1].fallen > state.counters / 4 && parseInt(told("contrib", "fallen")) === state.sides[1].fallen`:           true,
		`performance.getEntriesByType("resource").every(r => r.name.startsWith(location.origin) || r.name.startsWith("data:"))`: true,
		`document.documentElement.scrollHeight <= 800 && document.documentElement.scrollWidth <= 1280`:                          true,
	} {
		if got := evaluate[bool](b, expression); got != want {
			t.Errorf("%s is %v", expression, got)
		}
	}
	b.readable()
	b.screenshots()
	if errs := b.errors(); len(errs) > 0 {
		t.Errorf("the console has errors: %q", errs)
	}

	cancel()
	if err := <-ended; err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
	b.until(`document.querySelector("#link").textContent === "the command has ended"`)
	if _, err := http.Get(url); err == nil {
		t.Error("the page is still served")
	}
}

// readable looks at contrasts, in the light and in the dark, and at a phone's width.
func (b *browser) readable() {
	b.t.Helper()
	defer b.colors("light")
	for _, scheme := range []string{"dark", "light"} {
		b.colors(scheme)
		for _, text := range []string{"--text", "--quiet", "--good", "--bad", "--deltaring", "--contrib"} {
			if c := evaluate[float64](b, fmt.Sprintf(`contrast(%q, "--card")`, text)); c < 4.5 {
				b.t.Errorf("%s: the contrast of %s is %.1f", scheme, text, c)
			}
		}
	}
	b.do(chromedp.EmulateViewport(390, 844))
	if width := evaluate[int](b, "document.documentElement.scrollWidth"); width > 390 {
		b.t.Errorf("the page is %d wide on a phone of 390", width)
	}
	b.do(chromedp.EmulateViewport(1280, 800))
}

// screenshots takes the one that README.md shows, and others beside it for people to look at.
func (b *browser) screenshots() {
	b.t.Helper()
	shot := func() []byte {
		b.t.Helper()
		image, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		if err != nil {
			b.t.Fatal(err)
		}
		return image
	}
	image := shot()
	b.checkImage("the screenshot", image)
	directory := os.Getenv(screenshotVariable)
	if directory == "" {
		return
	}
	b.colors("dark")
	dark := shot()
	b.do(chromedp.EmulateViewport(390, 1500))
	phone := shot()
	b.colors("light")
	b.do(chromedp.EmulateViewport(1280, 800))
	for name, image := range map[string][]byte{screenshotFile: image, "dark.png": dark, "phone.png": phone} {
		if err := os.WriteFile(filepath.Join(directory, name), image, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *browser) checkImage(what string, image []byte) {
	b.t.Helper()
	c, err := png.DecodeConfig(bytes.NewReader(image))
	if err != nil || c.Width != 1280 || c.Height != 800 || len(image) >= screenshotMost {
		b.t.Errorf("%s is %d x %d and has %d bytes, %v", what, c.Width, c.Height, len(image), err)
	}
}
