# Everything needs Go 1.26 or newer and a Debian-like system; what else is needed is installed on the way.

BUILDER     := go.opentelemetry.io/collector/cmd/builder@v0.165.0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
MODULES     := . $(patsubst %/go.mod,%,$(wildcard d2c/store/*/go.mod processor/*/*/go.mod ring/*/go.mod ring/*/*/go.mod examples/*/go.mod))
FUZZTIME    ?= 10s
# Backends that the tests ask besides Debian's Prometheus. The names contain the versions, so a raised one is built; the tests look here.
PROMETHEUS      := .tools/prometheus-v0.316.0
VICTORIAMETRICS := .tools/victoria-metrics-v1.151.0
# A Kubernetes API server, from .ci/apiserver, whose go.mod has the version again.
APISERVER       := .tools/apiserver-v1.36.3
# Debian has a directory for each version.
POSTGRES        := $(firstword $(wildcard /usr/lib/postgresql/*/bin/postgres) postgresql)
# An S3 server that keeps objects in files.
VERSITYGW       := .tools/versitygw-v1.8.0
SUDO        := $(if $(filter 0,$(shell id -u)),,sudo)

# in-modules runs a command in every module.
in-modules = @set -e; for module in $(MODULES); do echo "== $$module: $(1)"; (cd $$module && $(1)); done

.PHONY: help
help:
	@echo 'make quickstart   convert real deltas in an embedded Collector and check every total'
	@echo 'make demo         two fleets scale out, ours and contrib'"'"'s; watch it live at http://127.0.0.1:8080'
	@echo 'make test         everything that must pass; installs prometheus, redis, postgresql, qemu and chromium if they are missing, and builds .tools'
	@echo 'make certify      the shipped configurations into each backend, by each path, through each event: half an hour'
	@echo 'make tools        build the backends, the API server and the S3 server in .tools that the tests ask: minutes, once'
	@echo 'make oldest       the libraries and the processor with the oldest Collector that is supported'
	@echo 'make long         200 kills and half a million histories; hours are not enough to be sure, this is a night'
	@echo 'make collector    build examples/otelcol/build/otelcol-deltaring with OCB'
	@echo 'make validate     CONFIG=...: what is wrong with a configuration of that Collector, by validate and by a start of ten seconds'
	@echo 'make release-check VERSION=v0.1.0: whether the modules can be tagged, and the tags; release-version writes it into them'
	@echo 'make bench        the table of measured numbers'
	@echo 'make bench-pipeline  what whole Collectors cost, beside a bare one: half an hour'
	@echo 'make generate     regenerate metadata from every metadata.yaml'

.PHONY: quickstart
quickstart:
	@echo 'Compiling a Collector: 1 to 2 minutes on two cores the first time, a few seconds after that. Then it runs for 8 s.'
	@cd examples/quickstart && go run .

# DEMO_HTTP is the address of the page, on this machine.
DEMO_HTTP ?= 127.0.0.1:8080

.PHONY: demo
demo: /usr/bin/prometheus /usr/bin/redis-server
	@echo 'Compiling the demo: about a minute on two cores the first time. It then compiles two Collectors: minutes the first time, and its page says so.'
	@cd examples/fleet && mkdir -p build && go build -o build/demo . && exec build/demo -demo -http $(DEMO_HTTP)

.PHONY: collector
collector:
	cd examples/otelcol && go run $(BUILDER) --config manifest.yaml

# What otelcol validate cannot see, a start can: see DISTRIBUTION.md.
.PHONY: validate
validate: collector
	@test -n '$(CONFIG)' || { echo 'make validate CONFIG=config.yaml'; exit 2; }
	examples/otelcol/build/otelcol-deltaring validate --config '$(CONFIG)'
	timeout --preserve-status --signal=TERM 10 examples/otelcol/build/otelcol-deltaring --config '$(CONFIG)'

.PHONY: release-version release-check
release-version:
	cd .ci/release && go run . set '$(VERSION)' ../..

release-check:
	cd .ci/release && go run . check '$(VERSION)' ../.. && go run . tags '$(VERSION)' ../..

.PHONY: bench
bench:
	cd examples/bench && go run .

.PHONY: bench-pipeline
bench-pipeline: /usr/bin/redis-server $(POSTGRES) $(VERSITYGW)
	cd examples/bench/pipeline && go run . -json build/pipeline.json -chart ../pipeline.png

.PHONY: generate
generate:
	cd processor/d2cprocessor && go generate ./...
	cd processor/state/redisstate && go generate ./...
	cd processor/state/postgresstate && go generate ./...
	cd processor/state/s3state && go generate ./...
	cd ring/ringexporter && go generate ./...
	cd ring/lanesconnector && go generate ./...

.PHONY: test
test: lint unit oldest cross fuzz bench-once

.PHONY: lint
lint:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "not gofmt-ed: $$unformatted"; exit 1; }
	$(call in-modules,go vet ./...)
	$(call in-modules,go run $(STATICCHECK) ./...)
	$(call in-modules,go mod tidy -diff)
	$(MAKE) generate && git diff --exit-code --stat processor ring

# -count=1: what the tests run is built from other modules, of which the test cache knows nothing.
.PHONY: unit
unit: /usr/bin/prometheus /usr/bin/redis-server /usr/bin/chromium $(POSTGRES) tools
	$(call in-modules,go test -race -count=1 -timeout 30m ./...)
	go test ./streamid ./ring ./d2c/... # again: allocations and bytes are exact only without the race detector
	go test -short -tags purego ./streamid # splitting by the exported methods of pdata alone
	go test -short -tags purego -run 'Histories|Row' ./d2c # and so for points

# The oldest Collector that is supported; the modules build with the newest. To raise it, change the versions in
# .ci/oldest.mod and run go mod tidy -modfile=.ci/oldest.mod.
OLDEST := ./streamid ./ring ./ring/resolve ./d2c/... ./internal/... ./processor/d2cprocessor

.PHONY: oldest
oldest:
	go mod tidy -diff -modfile=.ci/oldest.mod
	go vet -modfile=.ci/oldest.mod $(OLDEST)
	go test -short -count=1 -modfile=.ci/oldest.mod $(OLDEST)

# Real Collectors with the files of examples/otelcol, and every sample that the backends have of them.
.PHONY: certify certify-short
certify: /usr/bin/prometheus /usr/bin/redis-server tools
	cd examples/fleet && go run . -certify

certify-short: /usr/bin/prometheus /usr/bin/redis-server tools
	cd examples/fleet && go run . -certify -short

.PHONY: long
long: /usr/bin/prometheus /usr/bin/redis-server tools
	D2C_HISTORIES=500000 go test -count=1 -timeout 8h ./d2c
	go test -run '^$$' -fuzz '^FuzzOpen$$' -fuzztime 1h ./d2c
	go test -run '^$$' -fuzz '^FuzzSharedRecord$$' -fuzztime 1h ./d2c
	go test -run '^$$' -fuzz '^FuzzAggregateRecord$$' -fuzztime 1h ./d2c
	cd ring/ringexporter && RING_STORM=1m go test -count=1 -run Storm .
	cd ring/resolve/k8s && RING_STORM=1m go test -count=1 -run APIServer .
	cd examples/otelcol && D2C_KILLS=200 go test -count=1 -timeout 1h -run TestCrashLoop .

# Identities, rings and folds must not depend on word size or byte order. Emulated, simulations would take many minutes; what they write
# is held by golden vectors, which are run.
PORTABLE := ./streamid ./ring ./d2c ./d2c/internal/... ./d2c/store/log/...

.PHONY: cross
ifeq ($(shell go env GOHOSTARCH),amd64)
cross: /usr/bin/qemu-s390x-static
	@# Not every kernel of amd64 runs programs of 32 bits, and QEMU does not run those of Go for 386. A test of nothing tells.
	if CGO_ENABLED=0 GOARCH=386 go test -run '^$$' ./ring >/dev/null 2>&1; then \
		CGO_ENABLED=0 GOARCH=386 go test -short $(PORTABLE); \
	else \
		CGO_ENABLED=0 GOARCH=arm go test -short -skip Simulation -exec qemu-arm-static $(PORTABLE); \
	fi
	CGO_ENABLED=0 GOARCH=s390x go test -short -skip Simulation -exec qemu-s390x-static $(PORTABLE)
	CGO_ENABLED=0 GOARCH=arm64 go test -short -skip Simulation -exec qemu-aarch64-static $(PORTABLE)
else
cross:
	@echo "cross: runs on amd64 only"
endif

# FuzzOpen, FuzzSharedRecord and FuzzAggregateRecord forge state with right checksums; every unit test plays what they have found so far, and to look
# for more is for "make long". Go before 1.27 may fail a run for no more than the end of its time (golang/go#75804): that is no
# finding, which would leave its input.
.PHONY: fuzz
fuzz:
	@set -e; for package in streamid ring d2c d2c/internal/fold d2c/store/log d2c/store/s3; do \
		for target in $$(go -C $$package test -list '^Fuzz' . | grep '^Fuzz' | grep -v -e '^FuzzOpen$$' -e '^FuzzSharedRecord$$' -e '^FuzzAggregateRecord$$'); do \
			echo "== $$package: $$target"; \
			output=$$(go -C $$package test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x . 2>&1) || { \
				echo "$$output"; \
				echo "$$output" | grep -qx '    context deadline exceeded' && ! echo "$$output" | grep -q 'Failing input' || exit 1; \
			}; \
		done; \
	done

.PHONY: bench-once
bench-once: $(POSTGRES)
	$(call in-modules,go test -run '^$$' -bench . -benchtime 1x ./...)

# Without the web pages, which the module does not contain, and service discovery, which takes most of the time to build.
.PHONY: tools
tools: $(PROMETHEUS) $(VICTORIAMETRICS) $(APISERVER) $(VERSITYGW)

.tools/prometheus-%:
	GOBIN='$(CURDIR)/$@.bin' CGO_ENABLED=0 go install -tags remove_all_sd github.com/prometheus/prometheus/cmd/prometheus@$*
	mv $@.bin/prometheus $@ && rmdir $@.bin

.tools/victoria-metrics-%:
	GOBIN='$(CURDIR)/$@.bin' CGO_ENABLED=0 go install github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-metrics@$*
	mv $@.bin/victoria-metrics $@ && rmdir $@.bin

.tools/versitygw-%:
	GOBIN='$(CURDIR)/$@.bin' CGO_ENABLED=0 go install github.com/versity/versitygw/cmd/versitygw@$*
	mv $@.bin/versitygw $@ && rmdir $@.bin

# The modules that Kubernetes keeps in its own repository are replaced by their published versions.
.tools/apiserver-v%:
	grep -qx '	k8s.io/kubernetes v$*' .ci/apiserver/go.mod
	cd .ci/apiserver && CGO_ENABLED=0 go build -trimpath -o '$(CURDIR)/$@' -ldflags \
		'-s -w -X k8s.io/component-base/version.gitVersion=v$* $(foreach i,1 2,-X k8s.io/component-base/version.git$(word $(i),Major Minor)=$(word $(i),$(subst ., ,$*)))' .

/usr/bin/prometheus:
	$(SUDO) apt-get update -qq
	DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends prometheus

/usr/bin/qemu-s390x-static:
	$(SUDO) apt-get update -qq
	DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends qemu-user-static

/usr/bin/redis-server:
	$(SUDO) apt-get update -qq
	DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends redis-server

.PHONY: postgresql
postgresql:
	$(SUDO) apt-get update -qq
	DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends postgresql

/usr/bin/chromium:
	$(SUDO) apt-get update -qq
	DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends chromium
