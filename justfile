# The recipes that people and CI run. `just` alone lists them.

default:
    @just --list

# Everything that must hold before a change lands
ci: fmt lint test doc tour

fmt:
    cargo fmt --check

lint:
    cargo clippy --all-targets --all-features -- -D warnings

# All tests; with nextest where it is installed
test:
    if command -v cargo-nextest >/dev/null; then cargo nextest run --all-features; else cargo test --all-features --all-targets; fi
    cargo test --all-features --doc

# Crash states beyond those of the tests: `just soak 3000000 1000` begins with workload 1000
soak states="3000000" seed="1000":
    LAYERSTONE_CRASH_STATES={{states}} LAYERSTONE_CRASH_SEED={{seed}} cargo test --release --all-features --test suite -- --nocapture --test-threads 1 crash::what crash::faults crash::repair
    LAYERSTONE_CRASH_PLAYS=$(({{states}} / 100)) LAYERSTONE_CRASH_SEED={{seed}} cargo test --release --all-features --test suite -- --nocapture crash::beside

# A hash of all operations of each of 50 workloads, to compare before and after a change of the code's structure
traces:
    cargo test --all-features --test suite -- --ignored --nocapture crash::traces | grep '^[0-9]'

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features

# The main job on a real directory
tour directory="/usr/share":
    cargo run --release --example tour -- {{directory}}

bench:
    cargo bench

# Runs one fuzz target: `just fuzz tar`
fuzz name seconds="60":
    cargo fuzz run --sanitizer none {{name}} -- -max_total_time={{seconds}}

# Licences, duplicate versions and sources of the dependencies, with cargo-deny
deny:
    cargo deny --all-features --offline check licenses bans sources
