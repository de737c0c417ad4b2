# The project's commands. `just` lists them; without just: `npx -y rust-just RECIPE`.
#
# Every cargo command has `--workspace`: cargo unifies features over the selected packages, so
# another selection would compile the runtime again.

set shell := ["bash", "-euo", "pipefail", "-c"]

python := "componentize/python/.venv/bin/python"

# list the recipes
default:
    @just --list --unsorted 2>/dev/null || npx -y rust-just --list --unsorted

# run the gateway with three filters and a built-in upstream, and print what to try
demo: build build-guests
    target/release/witgate run

# build the gateway and componentize
build:
    cargo build --release --locked --workspace

# build the gateway to install, target/dist/witgate (30 minutes at first, then 5 to 10)
dist: build build-guests build-fixtures
    cargo build --release --locked --workspace --examples
    deploy/dist

# pack target/dist/witgate and the SDKs for npm, PyPI, Debian and cargo, and try each package
packages BINARY="target/dist/witgate":
    deploy/packages/build {{ BINARY }}
    deploy/packages/check

# build the filters whose sources changed, and precompile them for `just demo`
build-guests *FOLDERS="guests": build
    target/release/componentize build {{ FOLDERS }} --precompile state

# build the filters that only tests use, some of them also without optimization
build-fixtures: build
    target/release/componentize build tests/fixtures
    tests/fixtures/http/build
    target/release/componentize build guests/typescript/api-key --no-optimize --out-dir tests/fixtures/dist/typescript/unoptimized
    target/release/componentize build guests/python/api-key guests/python/redact tests/fixtures/python/corpus --no-optimize --out-dir tests/fixtures/dist/python/unoptimized

# run all checks: lints, licences, unit tests in every language, end-to-end tests, fuzzing
test: lint deny test-host build-guests build-fixtures test-guests test-e2e (fuzz "20")

# check formatting and lints
lint:
    cargo fmt --all --check
    cargo fmt --manifest-path tests/fuzz/Cargo.toml --check
    cargo clippy --release --locked --workspace --all-targets -- -D warnings

# check licences, duplicates and sources of the dependencies
deny:
    @command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny
    cargo deny check bans licenses sources

# check the dependencies for known vulnerabilities; needs the advisory database from the network
advisories:
    @command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny
    cargo deny check advisories

# run the unit tests of the gateway and of componentize
test-host:
    cargo test --release --locked --workspace --lib --bins --test keyvalue --test docs

# run the unit tests of the filters and SDKs, each in its own language
test-guests: build build-guests
    target/release/componentize setup
    npm test --silent --prefix componentize/typescript
    {{ python }} -m pytest -c componentize/python/pytest.ini
    cd guests/rust && cargo test --release --locked --target-dir ../../target/guests

# run the end-to-end tests, which start the real binary
test-e2e: build build-guests build-fixtures test-tools
    cargo test --release --locked --workspace --test e2e --test http1 --test http2 --test hostile --test abuse

# install what tests need besides Rust, Node and Python: h2spec, grpcio, testssl.sh, servers
test-tools:
    tests/tools/install

# test HTTP/1 with ambiguous requests and faulty upstreams; prints tables
http1: build build-guests
    cargo test --release --locked --workspace --test http1 -- --nocapture

# test HTTP/2: h2spec, translation to HTTP/1, semantics, gRPC
http2: build build-guests test-tools
    cargo test --release --locked --workspace --test http2 -- --nocapture

# test floods and slow connections; prints tables of their cost
abuse: build
    cargo test --release --locked --workspace --test abuse -- --nocapture

# run all attacks together for so many seconds; prints what neighbours notice (`ulimit -n 30000`)
attacks SECONDS="300": build
    ATTACK_SECONDS={{ SECONDS }} cargo test --release --locked --workspace --test abuse -- --nocapture all_attacks

# compare the gateway's answers with those of nginx (docs/how-to/migrate-from-others.md)
migrations: build build-guests
    tests/tools/install nginx-lua
    cargo test --release --locked --workspace --test e2e -- --include-ignored migrations::

# test oras, crane, cosign, versitygw and Azurite with filters from servers (10 minutes at first)
sources: build test-tools
    tests/tools/install oras crane cosign versitygw azurite
    cargo test --release --locked --workspace --test e2e -- --ignored source_tools

# run testssl.sh on a TLS listener
testssl: build test-tools
    cargo test --release --locked --workspace --test http2 testssl -- --nocapture

# test hostile filters and the latency of their neighbours; prints a table
hostile: build
    cargo test --release --locked --workspace --test hostile -- --nocapture

# run each fuzz target for so many seconds; new inputs stay in tests/fuzz/corpus
fuzz SECONDS="60":
    tests/fuzz/run {{ SECONDS }}

# write docs/reference/openapi.json from the code
openapi:
    WRITE_OPENAPI=1 cargo test --release --locked --workspace --lib -- the_document_of_the_reference

# send invalid requests to the admin listener, from its OpenAPI document (needs schemathesis)
schemathesis: build
    tests/tools/schemathesis

# change releases and reload under load, so many times; prints memory and open files
release-soak ROUNDS="334": build
    RELEASE_SOAK={{ ROUNDS }} cargo test --release --locked --workspace --test e2e -- --nocapture release_load::a_thousand

# print the processor time of a request without a release, with a canary, and with a shadow
release-cpu REQUESTS="20000": dist
    WITGATE="$PWD/target/dist/witgate" RELEASE_CPU={{ REQUESTS }} cargo test --release --locked --workspace --test e2e -- --nocapture release_load::processor_time

# send 100,000 requests to filters that look for traces of other calls
isolation: build build-guests build-fixtures
    ISOLATION_REQUESTS=100000 cargo test --release --locked --workspace --test e2e -- --nocapture isolation::

# build and test what `witgate new` writes, in all languages (minutes)
templates: build build-guests
    cargo test --release --locked --workspace --test e2e -- --nocapture --ignored every_template

# replace a certificate every second under load, for so many seconds
certs-soak SECONDS="60": build
    CERT_SOAK_SECONDS={{ SECONDS }} cargo test --release --locked --workspace --test e2e -- --nocapture certificates_change_under_load

# measure memory over 100 reloads with 10,000 requests each
soak-reloads: build
    SOAK=1 cargo test --release --locked --workspace --test e2e -- --nocapture memory_does_not_grow

# compare witgate with other gateways (15 minutes; `target/release/bench --help` lists the options)
bench *OPTIONS: build dist build-guests build-fixtures
    cargo build --release --locked --workspace --examples
    WITGATE="$PWD/target/dist/witgate" target/release/bench {{ OPTIONS }}

# measure filter calls without HTTP, on one and on two threads
bench-instances: build build-guests
    cargo build --release --locked --workspace --examples
    target/release/examples/instances

# measure calls of other services and cryptography: cost per function, waiting requests, tokens
bench-calls: build build-guests build-fixtures
    cargo test --release --locked --workspace --test e2e -- --ignored --nocapture --test-threads 1 outbound::figures

# print the table of docs/reference/capability-costs.md, from the binary of `just dist` (a minute)
bench-costs: dist
    WITGATE="${WITGATE:-$PWD/target/dist/witgate}" cargo test --release --locked --workspace --test e2e -- --ignored --nocapture cost_of_each_function

# print what requests see while a shared store is slow, killed, flapping and back (2 minutes)
bench-stores: build test-tools
    cargo test --release --locked --workspace --test e2e -- --ignored --nocapture requests_while_the_store_fails

# test a Redis Cluster of six servers and three Sentinels, each with the loss of a master (a minute)
redis-cluster: build build-fixtures test-tools
    cargo test --release --locked --workspace --test e2e -- --ignored --nocapture --test-threads 1 stores::cluster

# measure three shapes of the filter interface (docs/decisions/0001-plain-function-abi.md)
bench-abi: build
    target/release/componentize setup
    node tests/fixtures/abi/build.mjs
    cargo build --release --locked --workspace --examples
    target/release/examples/abi

# cause the fault of each alert, and see it fire and clear in a real Prometheus (a minute)
alerts: build
    tests/tools/install prometheus alertmanager redis
    ALERTS=1 cargo test --release --locked --workspace --test e2e -- --nocapture each_alert_fires_on_a_real_fault

# send traffic at 1.5 times PEAK requests per second, and check thresholds; an hour: 3600
load SECONDS="120" PEAK="200" *OPTIONS: build build-guests
    tests/load/install
    python3 tests/load/run.py {{ SECONDS }} {{ PEAK }} {{ OPTIONS }}

# kill endpoints and Redis, swap filters and certificates under load; a soak: 900 200
chaos SECONDS="120" RATE="1000": build
    tests/tools/install redis
    CHAOS_SECONDS={{ SECONDS }} CHAOS_RATE={{ RATE }} cargo test --release --locked --workspace --test e2e -- --nocapture faults_under_load

# apply the Kubernetes manifests to a real kube-apiserver (builds it at first: ten minutes)
manifests:
    tests/kube/check

# build a collector (minutes) and print what arrives at ports 4317 and 4318
otel-collector:
    test -x target/tools/otelcol/otelcol-witgate || go run go.opentelemetry.io/collector/cmd/builder@v0.165.0 --config deploy/otel/builder.yaml
    target/tools/otelcol/otelcol-witgate --config deploy/otel/collector.yaml

# build the documentation as a website in target/site/book, and check its links
docs:
    tests/docs/site

# build filters with 44 packages of npm and 44 of PyPI and compare what they compute (40 minutes)
corpus *KINDS="npm pypi": build
    for kind in {{ KINDS }}; do python3 tests/packages/run.py "$kind"; done

# write the tables of docs/reference/differences.md from what filters, Node.js and CPython answer
differences: build build-fixtures
    DIFFERENCES_WRITE=1 cargo test --release --locked --workspace --test e2e -- --test-threads=1 expressions_have

# build filters with every typical mistake of an author and check what is printed (5 minutes)
mistakes: build
    ALL_MISTAKES=1 cargo test --release --locked --workspace --test e2e -- mistake

# drive the console in headless Chromium (Debian: chromium) and write screenshots into docs/console
console: build build-guests
    npm install --silent --no-package-lock --prefix tests/console
    mkdir -p docs/console
    node tests/console/console.mjs target/release/witgate docs/console
