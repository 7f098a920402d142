# What a developer types. Everything made here goes to bin/ and build/, which git
# ignores; docs/development.md explains the targets and the caches.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
.PHONY: build run test lint proto bench fuzz servers tools proto-tools clean distclean help

FUZZTIME ?= 20s
TOOLS := build/tools
PROTO_TOOLS := $(addprefix $(TOOLS)/,buf protoc-gen-go-grpc protoc-gen-grpc-gateway protoc-gen-openapiv2)

# The version of a binary is its module version, which go reads from git; see it
# with `go version -m bin/sallyportd`.
GO_BUILD := CGO_ENABLED=0 go build -trimpath
STAMP := -buildvcs=auto

build: ## Build every program of cmd/ into bin/
	@mkdir -p bin
	$(GO_BUILD) $(STAMP) -o bin/ ./cmd/...

run: build ## Start a whole Sallyport on this machine, in build/dev; ARGS="--sources FILE" adds a Vault
	bin/sallyport-dev --dir build/dev $(ARGS)

test: servers ## Vet, run every test with the race detector, check the rules of the tree
	.ci/test

lint: $(TOOLS)/golangci-lint ## Run golangci-lint; FIX=1 repairs what can be repaired
	$(TOOLS)/golangci-lint run $(if $(FIX),--fix)

proto: proto-tools ## Format, lint and generate code from proto/
	.ci/proto generate

bench: build ## Measure; the results are appended to build/bench.jsonl
	bin/hammer bench --out build/bench.jsonl

fuzz: ## Run every fuzz target for FUZZTIME (20s)
	FUZZTIME=$(FUZZTIME) .ci/fuzz

servers: ## Install the real servers that tests talk to
	.ci/need cc python3-venv openssl
	@for s in .ci/servers/*.sh; do [ ! -e "$$s" ] || { echo "$$s"; "$$s" >/dev/null; }; done

tools: proto-tools $(TOOLS)/golangci-lint ## Build the pinned development tools
proto-tools: $(PROTO_TOOLS) $(TOOLS)/protoc-gen-go build/googleapis
	@:

$(TOOLS)/buf: TOOL = github.com/bufbuild/buf/cmd/buf
$(TOOLS)/protoc-gen-go-grpc: TOOL = google.golang.org/grpc/cmd/protoc-gen-go-grpc
$(TOOLS)/protoc-gen-grpc-gateway: TOOL = github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway
$(TOOLS)/protoc-gen-openapiv2: TOOL = github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-openapiv2

$(PROTO_TOOLS): .ci/tools/go.mod .ci/tools/go.sum
	@mkdir -p $(TOOLS)
	cd .ci/tools && $(GO_BUILD) -o ../../$@ $(TOOL)
	@touch $@

# From the root module, so that generated code and the library are of one version.
$(TOOLS)/protoc-gen-go: go.sum
	@mkdir -p $(TOOLS)
	$(GO_BUILD) -o $@ google.golang.org/protobuf/cmd/protoc-gen-go
	@touch $@

$(TOOLS)/golangci-lint: .ci/lint/go.mod .ci/lint/go.sum
	@mkdir -p $(TOOLS)
	@echo "building golangci-lint, once; this takes some minutes"
	cd .ci/lint && $(GO_BUILD) -o ../../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

build/googleapis: .ci/googleapis .ci/googleapis.txt
	.ci/need python3-venv
	.ci/googleapis

clean: ## Remove programs and what `make run` left; keep tools and servers
	rm -rf bin build/dev build/_gen build/bite

distclean: clean ## Remove everything that is made
	chmod -R u+w build 2>/dev/null || true
	rm -rf build

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
