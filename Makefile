# rustbox: `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# A fresh root shell may not have rustup's directory on its PATH.
export PATH := $(HOME)/.cargo/bin:$(PATH)

PREFIX ?= /usr/local
DESTDIR ?=
bindir = $(DESTDIR)$(PREFIX)/bin
sharedir = $(DESTDIR)$(PREFIX)/share
docdir = $(sharedir)/doc/rustbox
unitdir = $(DESTDIR)$(PREFIX)/lib/systemd/system

# `.cargo/config.toml` names the host as the target, so cargo adds its name to the path.
HOST = $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
TARGET_DIR = $(or $(CARGO_TARGET_DIR),target)
BIN = $(abspath $(TARGET_DIR))/$(HOST)/release/rustbox

# Debian's Python, which has the packages; another may come first on PATH.
PYTHON = /usr/bin/python3
PYTHON_MODULES = /usr/lib/python3/dist-packages

SUBMISSION = bundles/examples/sum

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

.PHONY: deps
deps: ## install what a build and a judged run need, if missing
	@integration/ci/need gcc:gcc g++:g++ /usr/include/seccomp.h:libseccomp-dev python3:python3
	@integration/ci/rust

.PHONY: deps-test
deps-test: deps deps-packaging ## install what the tests need, if missing
	@integration/ci/need /var/lib/dpkg/info/busybox-static.list:busybox-static crun:crun runc:runc strace:strace criu:criu iptables:iptables \
		newuidmap:uidmap ip:iproute2 mkfs.ext4:e2fsprogs jq:jq qemu-system-x86_64:qemu-system-x86 \
		go:golang-go javac:default-jdk-headless node:nodejs tsc:node-typescript \
		$(PYTHON_MODULES)/pytest:python3-pytest $(PYTHON_MODULES)/jsonschema:python3-jsonschema
	@integration/ci/unpack prometheus $(TARGET_DIR)/prometheus

.PHONY: deps-packaging
deps-packaging:
	@integration/ci/need systemd-analyze:systemd setpriv:util-linux $(PYTHON_MODULES)/yaml:python3-yaml

.PHONY: deps-bench
deps-bench: deps ## install what the benches need, if missing
	@integration/ci/need /var/lib/dpkg/info/busybox-static.list:busybox-static crun:crun runc:runc bwrap:bubblewrap \
		hyperfine:hyperfine strace:strace podman:podman catatonit:catatonit containerd:containerd ip:iproute2 \
		/usr/lib/cni/bridge:containernetworking-plugins

.PHONY: build
build: deps ## build the release binary
	cargo build --release --locked

.PHONY: run
run: build ## judge an example submission: a C++ program that adds two numbers
	$(BIN) run --source $(SUBMISSION)/sum.cpp --stdin $(SUBMISSION)/input.txt

.PHONY: test
test: deps-test ## run all tests; the last line sums them up
	integration/ci/test

.PHONY: crash-sweep
crash-sweep: deps-test ## kill, and let fail, every command at every system call; recover; prove nothing left (an hour)
	RUSTBOX_CRASH_SWEEP=all cargo test --locked --test crash -- sweep --nocapture

.PHONY: game-day
game-day: deps-test build ## bring a worker into each condition of the runbooks, and out again (NAME=… for one; a minute)
	RUSTBOX_BIN=$(BIN) $(PYTHON) integration/game-day/run $(NAME)

.PHONY: batch-soak
batch-soak: deps-test ## judge 2,000 mixed jobs by one batch: every verdict right, nothing left (2 minutes)
	RUSTBOX_BATCH_JOBS=2000 cargo test --locked --test batch -- mixed --nocapture

.PHONY: differential
differential: deps-test ## hold 320 configurations by rustbox against crun and libcontainer (minutes)
	RUSTBOX_DIFFERENTIAL=320 cargo test --locked --test differential -- --nocapture

# What the suites below have found, each in a file, until the report is written of all of them.
FOUND = $(abspath $(TARGET_DIR))/hostile
COUNT ?= $(if $(filter hostile-load,$(MAKECMDGOALS)),2000,20000)
SEED ?= 1
SECONDS ?= $(if $(filter soak,$(MAKECMDGOALS)),3600,600)

.PHONY: hostile
hostile: ## payloads, mutated configurations, fuzzing, runs under pressure; writes docs/security-report.md (an hour)
	$(MAKE) --no-print-directory hostile-payloads
	$(MAKE) --no-print-directory hostile-configs
	$(MAKE) --no-print-directory fuzz
	$(MAKE) --no-print-directory hostile-load
	$(MAKE) --no-print-directory security-report

.PHONY: security-report
security-report:
	integration/hostile/report $(FOUND) >docs/security-report.md

.PHONY: hostile-payloads
hostile-payloads: deps-test build ## payloads that try to break out, in every language (minutes)
	integration/hostile/claims
	RUSTBOX_BIN=$(BIN) $(PYTHON) integration/hostile/run --result $(FOUND)/payloads.json

.PHONY: hostile-configs
hostile-configs: deps-test build ## COUNT mutated configurations through create and delete, as root (minutes)
	RUSTBOX_BIN=$(BIN) $(PYTHON) integration/hostile/mutate --count $(COUNT) --seed $(SEED) --keep $(FOUND)/configs --result $(FOUND)/configurations.json

.PHONY: hostile-load
hostile-load: deps-test build ## COUNT judged runs under pressure from outside, supervisors killed at random (half an hour)
	@integration/ci/need stress-ng:stress-ng
	RUSTBOX_BIN=$(BIN) $(PYTHON) integration/hostile/load --count $(COUNT) --seed $(SEED) --result $(FOUND)/load.json

.PHONY: fuzz
fuzz: deps-test deps-fuzz ## what reads text, by cargo-fuzz, for SECONDS; with KEEP=1 the corpora grow
	$(PYTHON) integration/fuzz/run $(SECONDS) $(if $(KEEP),--keep) --result $(FOUND)/fuzz.json

.PHONY: deps-fuzz
deps-fuzz: deps
	command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz

.PHONY: soak
soak: deps-test build ## judge and run containers for SECONDS, an hour: nothing may grow; writes docs/soak.svg
	RUSTBOX_BIN=$(BIN) $(PYTHON) integration/hostile/soak $(SECONDS) --result $(FOUND)/soak.json --chart docs/soak.svg

.PHONY: conformance
conformance: deps-test build ## hold rustbox, runc and crun to the OCI runtime specification
	RUSTBOX_BIN=$(BIN) $(PYTHON) integration/conformance/run

.PHONY: conformance-docs
conformance-docs: deps-test build ## the same, and write docs/conformance.md
	RUSTBOX_BIN=$(BIN) $(PYTHON) integration/conformance/run --docs docs/conformance.md

# What apt-get source brings, and what is built of it.
PEERS = $(abspath $(TARGET_DIR))/peers
CONFORMANCE_PEERS = RUSTBOX_BIN=$(BIN) integration/peers/run --sources $(PEERS) --criu "$$(integration/ci/criu $(abspath $(TARGET_DIR))/criu)"

.PHONY: peers
peers: deps-test
	@integration/ci/need bats:bats gawk:gawk jq:jq xz:xz-utils go:golang-go gcc:gcc dpkg-source:dpkg-dev script:bsdutils \
		/usr/include/seccomp.h:libseccomp-dev /usr/share/gocode/src/github.com/opencontainers/runc:golang-github-opencontainers-runc-dev
	integration/peers/fetch $(PEERS)

.PHONY: conformance-peers
conformance-peers: peers build ## run runc's and crun's own tests against rustbox, runc and crun (half an hour)
	$(CONFORMANCE_PEERS)

.PHONY: conformance-peers-docs
conformance-peers-docs: peers build ## the same, and write docs/conformance-peers.md
	$(CONFORMANCE_PEERS) --docs docs/conformance-peers.md

.PHONY: test-vm
test-vm: deps-test ## run suites on other kernels and cgroup layouts, in emulated machines (a quarter of an hour)
	@integration/ci/need debootstrap:debootstrap
	$(PYTHON) integration/vm/run all

.PHONY: test-kernels
test-kernels: deps-test ## run suites where newer system calls are missing or blocked (5 minutes)
	cargo build --locked
	RUSTBOX_BIN=$(subst /release/,/debug/,$(BIN)) integration/kernels/run

.PHONY: bench
bench: deps-bench build ## measure against crun, runc and bwrap; writes docs/benchmarks.md and .svg
	RUSTBOX_BIN=$(BIN) integration/bench/bench

.PHONY: integration
integration: integration-podman integration-containerd integration-docker integration-prometheus integration-packaging ## run the real engines with rustbox and with runc

.PHONY: integration-podman
integration-podman: build ## podman, as root and rootless
	@integration/ci/need podman:podman runc:runc catatonit:catatonit /var/lib/dpkg/info/busybox-static.list:busybox-static \
		/usr/lib/cni/bridge:containernetworking-plugins newuidmap:uidmap fuse-overlayfs:fuse-overlayfs ip:iproute2 criu:criu
	RUSTBOX_CRIU=$$(integration/ci/criu $(abspath $(TARGET_DIR))/criu) RUSTBOX_BIN=$(BIN) integration/engines/podman

.PHONY: integration-containerd
integration-containerd: build ## containerd, by ctr and by CRI
	@integration/ci/need containerd:containerd runc:runc /var/lib/dpkg/info/busybox-static.list:busybox-static \
		/usr/lib/cni/bridge:containernetworking-plugins ip:iproute2 criu:criu $(PYTHON_MODULES)/grpc:python3-grpcio
	RUSTBOX_CRIU=$$(integration/ci/criu $(abspath $(TARGET_DIR))/criu) RUSTBOX_BIN=$(BIN) integration/engines/containerd

.PHONY: integration-docker
integration-docker: build ## Docker
	@integration/ci/need dockerd:docker.io runc:runc /var/lib/dpkg/info/busybox-static.list:busybox-static ip:iproute2 iptables:iptables \
		docker-init:tini newuidmap:uidmap
	RUSTBOX_BIN=$(BIN) integration/engines/docker

.PHONY: integration-packaging
integration-packaging: deps-packaging build ## units, tmpfiles and snippets, as installed, with all that read them
	@integration/ci/need podman:podman containerd:containerd dockerd:docker.io $(PYTHON_MODULES)/kubernetes:python3-kubernetes
	installed=$$(mktemp -d); trap 'rm -rf "$$installed"' EXIT; \
	$(MAKE) --no-print-directory install DESTDIR="$$installed" PREFIX=/usr; \
	RUSTBOX_BIN=$(BIN) RUSTBOX_INSTALLED="$$installed" integration/packaging/check --all

.PHONY: integration-prometheus
integration-prometheus: build ## Prometheus scrapes a worker (half a minute)
	@integration/ci/unpack prometheus $(TARGET_DIR)/prometheus
	RUSTBOX_BIN=$(BIN) RUSTBOX_PROMTOOL=$(abspath $(TARGET_DIR))/prometheus/usr/bin/promtool integration/prometheus/check
	RUSTBOX_BIN=$(BIN) RUSTBOX_PROMETHEUS=$(abspath $(TARGET_DIR))/prometheus/usr/bin/prometheus integration/prometheus/scrape

.PHONY: integration-kubernetes
integration-kubernetes: build ## Kubernetes over containerd, built from Debian's source (half an hour the first time)
	@integration/ci/need go:golang-go dpkg-source:dpkg-dev etcd:etcd-server openssl:openssl containerd:containerd runc:runc \
		/var/lib/dpkg/info/busybox-static.list:busybox-static /usr/lib/cni/bridge:containernetworking-plugins ip:iproute2
	RUSTBOX_BIN=$(BIN) integration/engines/kubernetes "$$(integration/ci/kubernetes $(abspath $(TARGET_DIR))/kubernetes)"

.PHONY: lint
lint: deps ## check formatting, clippy, and (if installed) cargo-deny and shellcheck
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	if command -v shellcheck >/dev/null; then shellcheck .ci/run integration/ci/{kubernetes,need,reproducible,rust,sanitize,test,unpack} integration/peers/fetch; fi
	if command -v cargo-deny >/dev/null; then cargo deny --locked check; else echo "cargo-deny: not installed, see make deny"; fi

.PHONY: deny
deny: deps ## check licences, advisories and sources, installing cargo-deny if missing (minutes)
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --locked check

.PHONY: sbom
sbom: deps ## write what is in the binary to target/sbom.json (CycloneDX)
	integration/ci/sbom >target/sbom.json

.PHONY: sanitize
sanitize: deps-test ## the library's tests under AddressSanitizer (minutes)
	integration/ci/sanitize

.PHONY: reproducible
reproducible: deps ## build the release twice, at two places, and compare (a quarter of an hour)
	integration/ci/reproducible $(TARGET_DIR)/reproducible

.PHONY: order
order: deps-bench ## find the functions that most commands execute, which the linker places beside each other
	RUSTBOX_SYMBOLS=1 cargo build --release --locked --target-dir $(TARGET_DIR)/order
	$(PYTHON) integration/bench/order $(TARGET_DIR)/order/$(HOST)/release/rustbox support/order/functions.txt

.PHONY: judge-filter
judge-filter: ## write the judge's filter as it is attached, src/seccomp/judge_program.rs
	RUSTBOX_JUDGE_FILTER=$(abspath src/seccomp/judge_program.rs) cargo test --locked --lib -- the_stored_program

.PHONY: unsafe-docs
unsafe-docs: ## write the inventory of unsafe code, docs/unsafe.md
	integration/ci/unsafe >docs/unsafe.md

.PHONY: fmt
fmt: ## format the code
	cargo fmt

.PHONY: doc
doc: deps ## build the API documentation
	cargo doc --locked --no-deps --document-private-items

.PHONY: man
man: build ## write the man pages to target/man
	mkdir -p target/man
	$(BIN) man --dir target/man

.PHONY: cli
cli: build ## write the reference of the command line, docs/cli.md
	$(BIN) reference >docs/cli.md

.PHONY: schemas
schemas: build ## write the JSON Schemas of what the commands print to docs/schemas
	$(BIN) schema --dir docs/schemas

.PHONY: metrics-docs
metrics-docs: build ## write the table of the metrics, docs/metrics.md
	sed -i '/^| metric |/,$$d' docs/metrics.md
	$(BIN) metrics --describe >>docs/metrics.md

.PHONY: completions
completions: build ## write the shell completions to target/completions
	mkdir -p target/completions
	$(BIN) completions bash >target/completions/rustbox.bash
	$(BIN) completions zsh >target/completions/_rustbox
	$(BIN) completions fish >target/completions/rustbox.fish

.PHONY: install
install: man completions ## install to $(DESTDIR)$(PREFIX)
	install -Dm755 $(BIN) $(bindir)/rustbox
	install -d $(sharedir)/man/man8
	install -m644 target/man/*.8 $(sharedir)/man/man8/
	install -Dm644 target/completions/rustbox.bash $(sharedir)/bash-completion/completions/rustbox
	install -Dm644 target/completions/_rustbox $(sharedir)/zsh/site-functions/_rustbox
	install -Dm644 target/completions/rustbox.fish $(sharedir)/fish/vendor_completions.d/rustbox.fish
	rm -rf $(sharedir)/rustbox/bundles
	install -d $(sharedir)/rustbox
	cp -r bundles $(sharedir)/rustbox/bundles
	install -d $(unitdir) $(docdir)
	for unit in integration/packaging/systemd/*; do \
		sed 's|/usr/bin/rustbox|$(PREFIX)/bin/rustbox|' "$$unit" >$(unitdir)/"$${unit##*/}"; done
	install -Dm644 integration/packaging/tmpfiles.d/rustbox.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/rustbox.conf
	cp -r integration/packaging/{README.md,containerd,crio,docker,kubernetes,podman} $(docdir)/
	install -d $(docdir)/prometheus
	install -m644 integration/prometheus/*.{yml,json} $(docdir)/prometheus/

.PHONY: uninstall
uninstall: ## remove what install put there
	rm -f $(bindir)/rustbox $(sharedir)/man/man8/rustbox.8 $(sharedir)/man/man8/rustbox-*.8
	rm -f $(sharedir)/bash-completion/completions/rustbox $(sharedir)/zsh/site-functions/_rustbox
	rm -f $(sharedir)/fish/vendor_completions.d/rustbox.fish
	rm -rf $(sharedir)/rustbox $(docdir)
	rm -f $(unitdir)/rustbox-{metrics.service,recover.service,recover.timer} $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/rustbox.conf

.PHONY: deb
deb: deps-packaging man completions ## build a Debian package, and install, use and purge it in a root of its own (minutes at first)
	command -v cargo-deb >/dev/null || cargo install --locked cargo-deb
	rm -f $(TARGET_DIR)/debian/*.deb
	cargo deb --locked --no-build --no-strip --target $(HOST) --output $(TARGET_DIR)/debian/
	RUSTBOX_BIN=$(BIN) integration/packaging/deb-check $(TARGET_DIR)/debian/rustbox_*.deb

.PHONY: clean
clean: ## remove what was built
	cargo clean
