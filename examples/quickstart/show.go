// Copyright The deltaring Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/collector/pdata/pmetric"
	"golang.org/x/term"
)

// board keeps the latest sample of each series and what was wrong with any sample before it: the things a backend for
// cumulative metrics would choke on.
type board struct {
	tamper func(pmetric.Metrics) // changes batches before they are looked at, one after the other; nil but in tests

	mu     sync.Mutex
	series map[string]*shown // by identity
	points int               // samples that came in
	events []string          // what a person should know happened and nobody has shown yet
	faults []string          // what should not have happened, the first maxFaults of it
	began  time.Time

	plain    map[string]*plainSeries // what came in, by identity
	advised  map[string]bool         // producers that were told how to send deltas
	troubles map[string]string       // a sample of what was not added, by outcome
}

// maxFaults bounds what a board remembers of a stranger's misbehaviour.
const maxFaults = 100

type shown struct {
	label
	latest  sample
	samples int  // with a new time
	again   int  // the latest one repeated, same time and same value: harmless
	moves   int  // of the start
	faults  int  // of any sort
	passed  bool // it came as totals
}

func newBoard() *board {
	return &board{
		series: map[string]*shown{}, began: time.Now(),
		plain: map[string]*plainSeries{}, advised: map[string]bool{}, troubles: map[string]string{},
	}
}

// note records an event; it is safe for concurrent use.
func (b *board) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.noteLocked(format, args...)
}

func (b *board) noteLocked(format string, args ...any) {
	b.events = append(b.events, fmt.Sprintf("%5.2fs  ", time.Since(b.began).Seconds())+fmt.Sprintf(format, args...))
}

// trouble keeps a sample of what became of points that were not added.
func (b *board) trouble(outcome, sample string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.troubles[outcome] = sample
}

// take looks at a batch and keeps nothing of it but copies; it is safe for concurrent use.
func (b *board) take(md pmetric.Metrics) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tamper != nil {
		b.tamper(md)
	}
	eachSample(md, func(identity string, l label, s sample) {
		b.points++
		known := b.series[identity]
		if known == nil {
			known = &shown{label: l, latest: s, samples: 1}
			b.series[identity] = known
			if s.delta {
				b.fault(known, "is still delta")
			}
			return
		}
		before := known.latest
		known.latest = s
		if s.kind == kindGauge || s.kind == kindSummary {
			known.samples++
			return
		}
		switch {
		case s.start != before.start:
			known.moves++
			b.fault(known, "start moved from %s to %s", instant(before.start), instant(s.start))
		case s.fellFrom(before) != "":
			b.fault(known, "%s under one start", s.fellFrom(before))
		}
		switch {
		case s.at > before.at:
			known.samples++
		case s.at < before.at:
			b.fault(known, "time went back from %s to %s", instant(before.at), instant(s.at))
		case s.diff(before) == "":
			known.again++
		default:
			b.fault(known, "two different samples at one time: %s", s.diff(before))
		}
	})
}

func (b *board) fault(s *shown, format string, args ...any) {
	if s.faults++; len(b.faults) < maxFaults {
		b.faults = append(b.faults, s.producer+" "+s.series()+": "+fmt.Sprintf(format, args...))
	}
}

// news returns the events since the last call and the number of samples so far.
func (b *board) news() ([]string, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	events := b.events
	b.events = nil
	return events, b.points
}

// rows returns a copy of all series, sorted for people.
func (b *board) rows() []shown {
	b.mu.Lock()
	defer b.mu.Unlock()
	rows := make([]shown, 0, len(b.series))
	for identity, s := range b.series {
		row := *s
		row.passed = b.plain[identity].passed()
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(x, y shown) int {
		return strings.Compare(x.producer+"\x00"+x.series(), y.producer+"\x00"+y.series())
	})
	return rows
}

// What a table can do without, from what is missed least.
const (
	noCovers = 1 << iota
	noShape
	shortType
	noType
	mostSpare
)

// table renders the series as text, with as many columns as fit into width.
func (b *board) table(width int) string {
	rows := b.rows()
	if len(rows) == 0 {
		return "(nothing has arrived yet)\n"
	}
	var text string
	for spare := 0; spare < mostSpare; spare = spare<<1 | 1 {
		text = tableOf(rows, spare)
		if widest(text) <= width {
			return text
		}
	}
	return text
}

func tableOf(rows []shown, spare int) string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	write := func(producer, series, typeName, total, shape, covers, samples string) {
		cells := []string{producer, series}
		if spare&noType == 0 {
			cells = append(cells, typeName)
		}
		cells = append(cells, total)
		if spare&noShape == 0 {
			cells = append(cells, shape)
		}
		if spare&noCovers == 0 {
			cells = append(cells, covers)
		}
		fmt.Fprintln(w, strings.Join(append(cells, samples, ""), "\t"))
	}
	write("PRODUCER", "SERIES", "TYPE", "TOTAL", "", "COVERS", "SAMPLES")
	last := ""
	for _, r := range rows {
		producer := clip(r.producer, 28)
		if producer == last {
			producer = ""
		} else {
			last = producer
		}
		covers, notes := "", ""
		if d := r.latest.covers(); d > 0 {
			covers = fmt.Sprintf("%.2fs", d.Seconds())
		}
		if r.again > 0 {
			notes += fmt.Sprintf(" +%d again", r.again)
		}
		if r.moves > 0 {
			notes += fmt.Sprintf(", start moved %dx", r.moves)
		}
		if others := r.faults - r.moves; others > 0 {
			notes += fmt.Sprintf(", %d FAULTS", others)
		}
		typeName := r.latest.typeName()
		if spare&shortType != 0 {
			typeName = r.latest.shortTypeName()
		}
		series := clip(r.series(), 44)
		if r.passed {
			series += " (passed)"
		}
		write(producer, series, typeName, r.latest.value(), r.latest.shape(), covers, fmt.Sprint(r.samples)+notes)
	}
	_ = w.Flush() // into memory
	return trimLines(out.String())
}

func widest(text string) int {
	n := 0
	for line := range strings.Lines(text) {
		n = max(n, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")))
	}
	return n
}

// wrap breaks a text between words, where it would be wider than width, and indents what follows.
func wrap(text string, indent, width int) string {
	var out strings.Builder
	column := 0
	for i, word := range strings.SplitAfter(text, " ") {
		n := utf8.RuneCountInString(strings.TrimSuffix(word, " "))
		if i > 0 && column+n > width && column > indent {
			out.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		}
		out.WriteString(word)
		column += utf8.RuneCountInString(word)
	}
	return trimLines(out.String())
}

// trimLines removes the blanks that a tabwriter leaves at the end of lines.
func trimLines(s string) string {
	var out strings.Builder
	for line := range strings.Lines(s) {
		out.WriteString(strings.TrimRight(line, " \n"))
		out.WriteByte('\n')
	}
	return out.String()
}

// shape draws the buckets of a histogram, at most sixteen bars wide, or nothing.
func (s sample) shape() string {
	var counts []uint64
	switch s.kind {
	case kindHistogram:
		counts = s.buckets
	case kindExponential:
		if len(s.positive) == 0 {
			return ""
		}
		lowest, highest := int32(1<<31-1), int32(-1<<31)
		for i := range s.positive {
			lowest, highest = min(lowest, i), max(highest, i)
		}
		width := (int64(highest)-int64(lowest))/16 + 1
		counts = make([]uint64, (int64(highest)-int64(lowest))/width+1)
		for i, n := range s.positive {
			counts[(int64(i)-int64(lowest))/width] += n
		}
	default:
		return ""
	}
	if len(counts) > 16 || len(counts) == 0 {
		return ""
	}
	bars, most := []rune("▁▂▃▄▅▆▇█"), max(1, slices.Max(counts))
	var out strings.Builder
	for _, n := range counts {
		if n == 0 {
			out.WriteRune(' ')
			continue
		}
		out.WriteRune(bars[min(uint64(len(bars)-1), n*uint64(len(bars))/most)])
	}
	return out.String()
}

func clip(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:width-1]) + "…"
	}
	return s
}

// The size of a screen where none is known, and how far the text of events is indented.
const (
	usualWidth, usualHeight = 80, 24
	eventIndent             = 8
)

// screen shows a board while it changes: redrawn in place in a terminal, as snapshots elsewhere.
type screen struct {
	board  *board
	out    io.Writer
	footer func() string // lines below the table, or nil
	stop   func()        // returns when nothing more will be written; call it once
}

// startScreen begins to show b on out. Where out is no terminal it prints a snapshot of what has changed every so often.
func startScreen(b *board, out io.Writer, every time.Duration, footer func() string) *screen {
	s := &screen{board: b, out: out, footer: footer}
	if footer == nil {
		s.footer = func() string { return "" }
	}
	file, _ := out.(*os.File)
	live := file != nil && term.IsTerminal(int(file.Fd()))
	if live {
		every = 200 * time.Millisecond
	}
	quit, done := make(chan struct{}), make(chan struct{})
	s.stop = func() {
		close(quit)
		<-done
	}
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		if live {
			s.redraw(file, tick.C, quit)
		} else {
			s.snapshots(tick.C, quit)
		}
	}()
	return s
}

// snapshots prints events and tables one after the other.
func (s *screen) snapshots(tick <-chan time.Time, quit <-chan struct{}) {
	points, below := 0, ""
	for {
		ended := false
		select {
		case <-tick:
		case <-quit:
			ended = true
		}
		events, now := s.board.news()
		for _, e := range events {
			fmt.Fprint(s.out, wrap(e, eventIndent, usualWidth))
		}
		if ended {
			return
		}
		// Where all points are dropped, nothing but the footer changes.
		if footer := s.footer(); now != points || footer != below {
			points, below = now, footer
			fmt.Fprintf(s.out, "\nafter %.1fs, %d samples:\n%s%s\n",
				time.Since(s.board.began).Seconds(), points, s.board.table(usualWidth), below)
		}
	}
}

// redraw keeps the table at the bottom of the terminal; in the end only the events stay.
func (s *screen) redraw(terminal *os.File, tick <-chan time.Time, quit <-chan struct{}) {
	lines := 0
	for {
		ended := false
		select {
		case <-tick:
		case <-quit:
			ended = true
		}
		if lines > 0 {
			fmt.Fprintf(s.out, "\r\x1b[%dA\x1b[J", lines) // up to where the table began, and clear from there
		}
		width, height, err := term.GetSize(int(terminal.Fd()))
		if err != nil || width <= 0 || height <= 0 {
			width, height = usualWidth, usualHeight
		}
		events, _ := s.board.news()
		for _, e := range events {
			fmt.Fprint(s.out, wrap(e, eventIndent, width))
		}
		if ended {
			return
		}
		rows, below := linesOf(s.board.table(width)), linesOf(s.footer())
		if limit := max(3, height-2-len(below)); len(rows) > limit {
			rows = append(rows[:limit-1], fmt.Sprintf("... and %d more; the terminal is too low for all", len(rows)-limit+1))
		}
		rows = append(rows, below...)
		for _, row := range rows {
			fmt.Fprintln(s.out, clip(row, width))
		}
		lines = len(rows)
	}
}

func linesOf(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}
