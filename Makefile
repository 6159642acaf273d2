# Every target works on a fresh Debian machine that has Go; what is missing is
# installed when we are root and named when we are not.

SHELL   := bash
GO      ?= go
TEST    ?= $(GO) test
BIN     := bin
FUZZ    ?= 50000x
SEEDS   ?= 1 2
CHAOS   ?= 35s
SEED    ?= 1
DIFFER  ?= 2000
DIFFERS := TestSessionModeCannotBeToldFromPostgreSQL|TestTransactionModeDiffersAsDocumentedOnly|TestKeptStateCannotBeToldFromASession|TestIdentitiesThatShareConnectionsDoNotMeet|TestClientsThatShareConnectionsDoNotMeet
LOAD    ?= 25s
HOSTILE ?= 30s
KEYS    ?= follower
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)

# Where Debian has pgbouncer and haproxy; not in everybody's PATH.
export PATH := $(PATH):/usr/sbin

.PHONY: help build demo test fresh check fmt vet lint arch generated reference race differ fuzz chaos clocks faults upgrade mutant regress bench bench-state image images image-test compose-demo deb deb-test clean
.NOTPARALLEL:

help:    ## list the targets
	@awk -F':.*## ' '/^[a-z-]+: .*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build:   ## static binaries in bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

needs-%: # what is missing of tools/needs.sh's list
	@tools/needs.sh $*

demo:    build ## a three-node cluster, a refusal and a revocation, from nothing to cleaned up
	./deploy/demo/demo.sh

test:    needs-test ## everything a contributor must pass
	$(TEST) -count=1 -timeout 15m ./...
	ARMOR_TEST_DRIVER=loop $(TEST) -count=1 -timeout 15m ./pooler

fresh:   ## demo and test on a bare Debian in a chroot (as root; half an hour)
	tools/fresh.sh

check:   needs-check fmt vet lint arch generated test race fuzz ## what CI runs before the chaos

fmt:
	@out=$$(gofmt -l .); test -z "$$out" || { echo "gofmt would change: $$out"; exit 1; }

vet:
	$(GO) vet ./...
	$(GO) vet -tags mutant,upgrade ./...

lint:    ## staticcheck, pinned in tools/go.mod
	$(GO) tool -modfile=tools/go.mod staticcheck ./...
	$(GO) test -C tools ./noskip ./reference

arch:    ## who may import whom
	$(TEST) -count=1 -run 'Imports|Rule|Drawing' ./armor

reference: ## write docs/reference.md: every key of armord.yaml and of the manifests
	$(GO) run -C tools ./reference "$(CURDIR)"

generated: ## see that what is generated is up to date (the code of the .proto files needs protoc)
	@$(GO) run -C tools ./reference -check "$(CURDIR)"
	@if command -v protoc >/dev/null; then \
	  sum() { cat armor/wire/*.pb.go fsm/fsmpb/*.pb.go rpc/armorpb/*.pb.go | sha256sum; }; before=$$(sum); \
	  tools/generate.sh && test "$$before" = "$$(sum)" || { echo "the generated code was not up to date; it is now"; exit 1; }; \
	else echo "protoc is not here: generated code is not checked"; fi

race:    needs-check ## the packages with goroutines, under the race detector
	$(TEST) -race -count=1 -timeout 20m ./cluster/... ./tlsedge/... ./pooler/... ./rpc/... ./fsm/... ./cmd/armord
	ARMOR_TEST_DRIVER=loop $(TEST) -race -count=1 -timeout 20m ./pooler

differ:  needs-demo ## random conversations with PostgreSQL and through the pooler, DIFFER of them from SEED on
	ARMOR_DIFFER_SEED=$(SEED) ARMOR_DIFFER_COUNT=$(DIFFER) $(GO) test -count=1 -timeout 60m -run '$(DIFFERS)' ./pooler
	ARMOR_TEST_DRIVER=loop ARMOR_DIFFER_SEED=$(SEED) ARMOR_DIFFER_COUNT=$(DIFFER) $(GO) test -count=1 -timeout 60m -run '$(DIFFERS)' ./pooler

# By count: with a duration Go 1.26 fails now and then for no reason (golang/go#75804).
fuzz:    ## every fuzz target for FUZZ each
	@for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZ) -fuzzminimizetime 1s $$pkg || exit 1; \
	  done; \
	done

chaos:   needs-demo build ## kill and stop leaders, once for each of SEEDS; many clients for LOAD (LOAD=10m is a long one); a thief with a node's key, for each of KEYS
	@for seed in $(SEEDS); do $(BIN)/armor-chaos run failover --seed $$seed --duration $(CHAOS) || exit 1; done
	$(BIN)/armor-chaos run load --seed $(firstword $(SEEDS)) --duration $(LOAD)
	@for key in $(KEYS); do $(BIN)/armor-chaos run hostile --key $$key --seed $(firstword $(SEEDS)) --duration $(HOSTILE) || exit 1; done

clocks:  needs-demo ## move the wall clocks of a minority of real nodes by seconds to years and back, under load (some minutes; NODES=5)
	tools/clocks.sh

faults:  needs-demo build ## what one fault costs, in network namespaces: until sessions are cut, until the answer, until the node serves again (root; some minutes; NODES=5)
	BIN=$(CURDIR)/$(BIN) tools/faults.sh

upgrade: needs-demo ## let this build go on with the data directories of an earlier one (some minutes; needs git's history)
	$(GO) test -tags upgrade -count=1 -timeout 25m -v -run TestDataOfAnEarlierBuildGoesOn ./chaos

# One build has all of the nodes' planted faults; ARMOR_MUTANT chooses one.
mutant:  needs-demo build ## prove that planted faults are caught: by the comparison with PostgreSQL, and by chaos
	$(TEST) -tags mutant -count=1 -run TestMutantsAreFound ./pooler
	mkdir -p $(BIN)/mutant
	CGO_ENABLED=0 $(GO) build -tags mutant -o $(BIN)/mutant/ ./cmd/...
	@run() { report=$(BIN)/mutant/$$1.json; \
	  ARMOR_MUTANT=$$1 $(BIN)/armor-chaos run $$2 --bin $(BIN)/mutant --seed 1 --duration $$3 >$$report; code=$$?; \
	  test $$code -eq 3 && grep -q "\"checker\": \"$$4\"" $$report || \
	  { echo "the mutant $$1 was not caught: exit code $$code, report in $$report"; exit 1; }; }; \
	run acknowledge failover 20s revocation && run unreset load 6s state && run swapped load 6s replies

regress: needs-regress build ## PostgreSQL's own regression suite, directly and through each way of lending (half an hour)
	tools/regress.sh $(REGRESS)

bench:   needs-bench build ## what a query costs, beside PgBouncer's (BENCH_PGBOUNCER=/path for another, BENCH_ODYSSEY=/path for Odyssey, too)
	$(GO) test -run '^$$' -bench . -benchmem ./pooler/core
	$(BIN)/armor-chaos bench $(BENCH)

bench-state: ## what a state of a million rows costs, and whether it may
	@echo '| what | measured | may be | |'; echo '|---|---|---|---|'
	@set -o pipefail; $(GO) test -run '^$$' -bench '^BenchmarkState$$' -benchtime 1x -timeout 30m ./fsm ./tlsedge | { grep '^|' || true; }

image:   build ## a container image from scratch
	tools/rootfs.sh $(BIN) $(BIN)/image
	docker build --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) \
	  --build-arg CREATED=$$(git show -s --format=%cI HEAD) -t armor:$(VERSION) -t armor:latest -f Dockerfile $(BIN)/image
	@docker image prune --force --filter label=org.opencontainers.image.title=Armor >/dev/null # what had the tag before

deb:     build ## the Debian package, in bin/deb
	tools/deb.sh $(VERSION)

deb-test: deb ## install the package on a bare Debian in a chroot, and start it there (as root)
	tools/deb-test.sh $(BIN)/deb/*.deb

images:  image ## the image, and those that docker-compose.yml takes from Docker Hub: pulled, or made from Debian's packages
	tools/images.sh

compose-demo: ## README's "With Docker", word for word, and that nothing is left (needs Docker)
	@tools/docker-here.sh
	tools/images.sh
	tools/compose-demo.sh

image-test: ## start the image and see that it lives (needs Docker)
	@tools/docker-here.sh
	tools/image-test.sh

clean:
	rm -rf $(BIN)
