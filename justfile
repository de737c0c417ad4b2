# What people do here. Always `--workspace`: selecting packages selects features, and the runtime would be built again.
# `just` alone lists it; without just: `npx -y rust-just RECIPE`.

set shell := ["bash", "-euo", "pipefail", "-c"]

python := "componentize/python/.venv/bin/python"

# this list
default:
    @just --list --unsorted 2>/dev/null || npx -y rust-just --list --unsorted

# run the gateway with filters in three languages on an embedded upstream, and say what to try
demo: build build-guests
    target/release/witgate run

# build the gateway and componentize
build:
    cargo build --release --locked --workspace

# the gateway to install: target/dist/witgate, optimised as one for the paths of a load (half an hour the first time, 5 to 10 minutes later)
dist: build build-guests build-fixtures
    cargo build --release --locked --workspace --examples
    deploy/dist

# build the filters whose sources changed; a gateway that runs here (`just demo`) finds them compiled
build-guests *FOLDERS="guests": build
    target/release/componentize build {{ FOLDERS }} --precompile state

# build the filters that only tests use
build-fixtures: build
    target/release/componentize build tests/fixtures
    target/release/componentize build guests/typescript/api-key --no-flatten --out-dir tests/fixtures/dist/typescript/unflattened
    target/release/componentize build guests/python/api-key guests/python/redact tests/fixtures/python/corpus --no-flatten --out-dir tests/fixtures/dist/python/unflattened

# everything: style, licences, unit tests in every language, end-to-end tests
test: lint deny test-host build-guests build-fixtures test-guests test-e2e fuzz

# formatting and lints
lint:
    cargo fmt --all --check
    cargo fmt --manifest-path tests/fuzz/Cargo.toml --check
    cargo clippy --release --locked --workspace --all-targets -- -D warnings

# licences, duplicates and sources of the dependencies
deny:
    @command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny
    cargo deny check bans licenses sources

# unit tests of the gateway and of componentize
test-host:
    cargo test --release --locked --workspace --lib --bins

# unit tests of the filters and SDKs, each in its own language
test-guests: build
    target/release/componentize setup
    npm test --silent --prefix componentize/typescript
    {{ python }} -m pytest -c componentize/python/pytest.ini
    cd guests/rust && cargo test --release --locked --target-dir ../../target/guests

# the real binary under test
test-e2e: build build-guests build-fixtures test-tools
    cargo test --release --locked --workspace --test e2e --test http1 --test http2 --test hostile --test abuse

# what tests need besides Rust, Node and Python: h2spec (Go), grpcio, testssl.sh; quick where it is there
test-tools:
    tests/tools/install

# what ambiguous requests and faulty upstreams get at the edge, as tables
http1: build build-guests
    cargo test --release --locked --workspace --test http1 -- --nocapture

# HTTP/2: h2spec, what it becomes on HTTP/1, conduct, gRPC
http2: build build-guests test-tools
    cargo test --release --locked --workspace --test http2 -- --nocapture

# what floods and slow connections get and cost, as tables
abuse: build
    cargo test --release --locked --workspace --test abuse -- --nocapture

# what testssl.sh finds on a TLS listener
testssl: build test-tools
    cargo test --release --locked --workspace --test http2 testssl -- --nocapture

# what hostile filters get and what their neighbours feel, as a table
hostile: build
    cargo test --release --locked --workspace --test hostile -- --nocapture

# paths, forwarded fields, PROXY headers, gateway.yaml and HTTP/1 heads under the fuzzer, each for so long; what it learns stays in tests/fuzz/corpus
fuzz SECONDS="60":
    tests/fuzz/run {{ SECONDS }}

# 100,000 requests to filters that look for traces of other calls
isolation: build build-guests build-fixtures
    ISOLATION_REQUESTS=100000 cargo test --release --locked --workspace --test e2e -- --nocapture isolation::

# certificates that change every second under load: for a minute, or `just certs-soak SECONDS`
certs-soak SECONDS="60": build
    CERT_SOAK_SECONDS={{ SECONDS }} cargo test --release --locked --workspace --test e2e -- --nocapture certificates_change_under_load

# 100 reloads under 10,000 requests each: what the gateway's memory does
soak-reloads: build
    SOAK=1 cargo test --release --locked --workspace --test e2e -- --nocapture compile::memory_does_not_grow

# witgate beside nginx, HAProxy, Envoy, Node and Go with the same filter, and the targets: docs/performance.md (15 minutes on a quiet machine; --peers, --quick, --reloads, --no-write)
bench *OPTIONS: build dist build-guests build-fixtures
    cargo build --release --locked --workspace --examples
    WITGATE="$PWD/target/dist/witgate" target/release/bench {{ OPTIONS }}

# what a call of a filter costs without HTTP around it, and what a second thread brings
bench-instances: build build-guests
    cargo build --release --locked --workspace --examples
    target/release/examples/instances

# what three shapes of a filter's interface cost, in three languages: docs/decisions/0001-plain-function-abi.md
bench-abi: build
    target/release/componentize setup
    node tests/fixtures/abi/build.mjs
    cargo build --release --locked --workspace --examples
    target/release/examples/abi
